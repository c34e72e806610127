"""Train one demo model on the corpus: packed rows, loss on the assistant's tokens only, Muon with AdamW.

Conversations are packed into rows of 192 to 1024 tokens; attention stays inside each conversation and positions start
anew in it. Matrices of the blocks learn by Muon (Jordan et al. 2024), embedding and norms by AdamW. The learning rate
warms up, stays, and falls linearly to zero over the last 70 %. Mixed precision: bfloat16 products, float32 weights.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from . import corpus
from .model import Llama, Shape
from .tokenizer import END_ID, PAD_ID, SIZE, START_ID, render

SHAPES = {
    "demo": Shape(vocab=SIZE, width=256, layers=6, heads=4, kv_heads=2, ffn=768),
    "draft": Shape(vocab=SIZE, width=128, layers=4, heads=2, kv_heads=1, ffn=384),
}
STEPS = {"demo": 3300, "draft": 1200}
TOKENS_PER_STEP = 4096
ROWS = (192, 384, 1024)
CHUNK = 6000
COOL_DOWN = 0.7


def answers(ids: np.ndarray, lead: list[int]) -> np.ndarray:
    """Which tokens of one conversation the assistant writes, its end token included; all of a bare text.

    A conversation may be cut inside a message.
    """
    starts = np.flatnonzero(ids == START_ID)
    if len(starts) == 0:
        return np.ones(len(ids), dtype=bool)
    wanted = np.zeros(len(ids), dtype=bool)
    ends = np.append(np.flatnonzero(ids == END_ID), len(ids))
    for start, end in zip(starts, ends, strict=False):
        first = start + 1 + len(lead)
        if ids[start + 1 : first].tolist() == lead:
            wanted[first : end + 1] = True
    return wanted


def examples(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids, wanted) of one conversation after another, without end."""
    lead = tokenizer.encode("assistant\n").ids
    while True:
        texts = [render(one) for one in corpus.conversations(seed, CHUNK)]
        for encoding in tokenizer.encode_batch(texts):
            ids = np.asarray(encoding.ids[: ROWS[-1] + 1], dtype=np.int64)
            if ids.size > 2:
                yield ids, answers(ids, lead)
        seed += 1


Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """(ids, positions, document numbers, targets), each (rows, length); a target of -100 is not learned.

    A conversation goes into the open row it fills best; when a length has five batches of open rows, its fullest leave.
    """
    rows: dict[int, list[list[tuple[np.ndarray, np.ndarray]]]] = {length: [] for length in ROWS}
    room: dict[int, list[int]] = {length: [] for length in ROWS}
    for ids, wanted in examples(tokenizer, seed):
        need = len(ids) - 1
        open_rows = [(free, n, i) for n in ROWS for i, free in enumerate(room[n]) if free >= need]
        if open_rows:
            _, length, at = min(open_rows)
        else:
            length = next(n for n in ROWS if need <= n)
            count = TOKENS_PER_STEP // length
            if len(rows[length]) == 5 * count:
                fullest = sorted(range(5 * count), key=room[length].__getitem__)[:count]
                yield pack([rows[length][i] for i in fullest], length)
                for i in sorted(fullest, reverse=True):
                    del rows[length][i], room[length][i]
            at = len(rows[length])
            rows[length].append([])
            room[length].append(length)
        rows[length][at].append((ids, wanted))
        room[length][at] -= need


def pack(rows: list[list[tuple[np.ndarray, np.ndarray]]], length: int) -> Batch:
    """Lay conversations one behind another in rows of this length."""
    shape = (len(rows), length)
    ids, positions = np.full(shape, PAD_ID), np.zeros(shape, dtype=np.int64)
    documents, targets = np.full(shape, -1), np.full(shape, -100)
    for r, row in enumerate(rows):
        at = 0
        for d, (tokens, wanted) in enumerate(row):
            end = at + len(tokens) - 1
            ids[r, at:end] = tokens[:-1]
            targets[r, at:end] = np.where(wanted[1:], tokens[1:], -100)
            positions[r, at:end] = np.arange(len(tokens) - 1)
            documents[r, at:end] = d
            at = end
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(documents), torch.from_numpy(targets)


class Muon:
    """Momentum, orthogonalised by five Newton-Schulz iterations, for matrices; equal shapes go together."""

    def __init__(self, matrices: list[Tensor], momentum: float = 0.95) -> None:
        self.momentum = momentum
        shapes = sorted({tuple(m.shape) for m in matrices})
        self.groups = [[m for m in matrices if tuple(m.shape) == shape] for shape in shapes]
        self.buffers = [torch.zeros(len(g), *g[0].shape) for g in self.groups]

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([m.grad for m in group if m.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = gradient.lerp(buffer, self.momentum).bfloat16()
            tall = update.shape[1] > update.shape[2]
            x = update.mT if tall else update
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                gram = x @ x.mT
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            update = (x.mT if tall else x).float()
            scale = rate * max(1.0, group[0].shape[0] / group[0].shape[1]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * decay).add_(change, alpha=-scale)


def rate_at(progress: float, step: int) -> float:
    """The share of the full learning rate."""
    return min(1.0, (step + 1) / 40) * min(1.0, (1 - progress) / COOL_DOWN)


def train(name: str, tokenizer: Tokenizer, out: Path, steps: int, minutes: float = 1e9, seed: int = 1) -> Llama:
    """Train the model `name` for so many steps, or until the minutes are spent; writes checkpoints to `out`."""
    torch.manual_seed(seed)
    random.seed(seed)
    model = Llama(SHAPES[name])
    print(f"{name}: {model.parameter_count() / 1e6:.2f} M parameters", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and not n.startswith("embed")]
    muon = Muon(matrices)
    others = [p for n, p in model.named_parameters() if p.dim() == 1 or n.startswith("embed")]
    adam = torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    fast = torch.compile(model, dynamic=False)
    started, spent, seen, mean = time.time(), 0.0, 0, 0.0
    last_save = started
    for step, (ids, positions, documents, targets) in enumerate(batches(tokenizer, 1000 * seed)):
        spent = (time.time() - started) / 60
        progress = max(step / steps, spent / minutes)
        if progress >= 1:
            break
        chosen = (targets.flatten() != -100).nonzero().squeeze(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = fast(ids, documents, positions)
            scores = model.logits(hidden.flatten(0, 1)[chosen])
        loss = F.cross_entropy(scores.float(), targets.flatten()[chosen])
        loss.backward()
        share = rate_at(progress, step)
        muon.step(0.02 * share, 0.05)
        adam.param_groups[0]["lr"] = 3e-3 * share
        adam.step()
        for p in model.parameters():
            p.grad = None
        seen += int((documents >= 0).sum())
        mean = loss.item() if step == 0 else 0.96 * mean + 0.04 * loss.item()
        if step % 25 == 0:
            busy = time.process_time()
            print(f"step {step} loss {mean:.4f} {spent:.1f} min, {busy:.0f} s of CPU, {seen} tokens, rate {share:.2f}", flush=True)
        if time.time() - last_save > 240:
            save(model, out)
            last_save = time.time()
    save(model, out)
    print(f"{name}: {seen} tokens in {spent:.1f} min, loss {mean:.4f}", flush=True)
    return model


def save(model: Llama, path: Path) -> None:
    """Write the checkpoint whole or not at all."""
    part = path.with_suffix(".part")
    torch.save({"shape": asdict(model.shape), "weights": model.state_dict()}, part)
    part.replace(path)


def load(path: Path) -> Llama:
    """Read a checkpoint."""
    state = torch.load(path, weights_only=True)
    model = Llama(Shape(**state["shape"]))
    model.load_state_dict(state["weights"])
    return model


def main() -> None:
    """`python -m tools.demo_model.train demo --tokenizer t.json --out demo.pt`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=list(SHAPES))
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = args.steps or STEPS[args.name]
    train(args.name, Tokenizer.from_file(str(args.tokenizer)), args.out, steps, args.minutes)


if __name__ == "__main__":
    main()
