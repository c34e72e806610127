"""Greedy answers of a demo model in PyTorch, from a checkpoint or from the exported GGUF: the check of the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from .evaluate import Answer, Message
from .model import Llama, Shape
from .names import unpermuted, weight_names
from .tokenizer import END_ID, SPECIALS, render
from .train import load

LONGEST = 200


@torch.inference_mode()
def greedy(model: Llama, ids: list[int], longest: int = LONGEST) -> list[int]:
    """The likeliest continuation up to the end token (which is left out) or the model's context."""
    caches: list[list[torch.Tensor]] = [[] for _ in range(model.shape.layers)]
    out: list[int] = []
    fresh = ids
    while len(out) < min(longest, model.shape.context - len(ids)):
        hidden = model(torch.tensor([fresh]), caches=caches)
        token = int(model.logits(hidden[0, -1]).argmax())
        if token == END_ID:
            break
        out.append(token)
        fresh = [token]
    return out


def answering(model: Llama, tokenizer: Tokenizer) -> Answer:
    """A function from messages to the model's answer."""

    def answer(messages: list[Message]) -> str:
        text = render([(m["role"], m["content"]) for m in messages], generate=True)
        return str(tokenizer.decode(greedy(model, tokenizer.encode(text).ids)))

    return answer


def from_checkpoint(path: Path) -> Answer:
    """Answers of a checkpoint whose tokenizer lies beside it."""
    return answering(load(path), Tokenizer.from_file(str(path.with_name("tokenizer.json"))))


def from_gguf(path: Path) -> Answer:
    """Answers of a GGUF: its tokenizer from its metadata, its weights dequantized by the gguf package."""
    reader = GGUFReader(path)

    def value(key: str) -> int:
        return int(reader.fields[f"llama.{key}"].contents())

    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    shape = Shape(
        len(tokens), value("embedding_length"), value("block_count"), value("attention.head_count"),
        value("attention.head_count_kv"), value("feed_forward_length"), value("context_length"),
    )
    stored = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    model = Llama(shape)
    weights = {}
    for ours, theirs in weight_names(shape).items():
        heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(theirs.split(".")[-2], 0)
        weights[ours] = torch.from_numpy(unpermuted(stored[theirs], heads) if heads else stored[theirs])
    model.load_state_dict(weights)
    return answering(model, tokenizer)
