"""Rows become int32 arrays, the arrays one forward pass, and its logits a token for each row that samples.

The only file of the engine that knows the native library. The arrays are made once, at the sizes of the largest pass;
a runner belongs to one thread at a time and refuses nothing by itself: the library checks every batch.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, finalize

import numpy as np
from numpy.typing import NDArray

from localllm.bindings import check, ffi, lib, text
from localllm.engine.sequence import Mask, Row, Sampled, Sequence
from localllm.params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """Sizes that are fixed when a runner is made; most of them are ll_runner_config's fields."""

    context: int  # most tokens of one sequence
    block_size: int  # tokens of a KV block, 16 or 32
    n_blocks: int
    max_tokens: int  # of one pass
    max_rows: int
    max_samples: int  # tokens of a step that get logits, at least max_rows
    threads: int = 0  # 0: one for each core that this process may use
    device: int = 0  # LL_CPU or LL_CUDA
    kv_type: int = 1  # LL_F16, LL_BF16, LL_F32 or LL_Q8_0
    profile: bool = False  # keep account of each operation, for Runner.work()

    def native(self) -> Any:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "context"}
        return ffi.new("ll_runner_config *", fields)


class Work(NamedTuple):
    """What one of a step's operations did and took. On a GPU, where a call only starts it, the time is at `finish`."""

    operation: str
    calls: int
    nanoseconds: int
    multiply_adds: int
    bytes: int  # of weights and KV cache

    def since(self, before: Work) -> Work:
        """The difference of two accounts of one operation."""
        return Work(self.operation, *(new - old for new, old in zip(self[1:], before[1:], strict=True)))


class Runner:
    """Raises the library's errors: MemoryLimitError when the pool does not fit, DeviceError when a step fails."""

    def __init__(self, model: Any, config: RunnerConfig) -> None:
        """`model` is an open ll_model *, which must outlive the runner."""
        out = ffi.new("ll_runner **")
        check(lib.ll_runner_open(out, model, config.native()))
        self._handle = out[0]
        self.close = finalize(self, _close, self._handle, os.getpid())
        info = ffi.new("ll_model_info *")
        lib.ll_model_get_info(model, info)
        self.config = config
        self.n_vocab = int(info.n_vocab)
        self.threads = int(lib.ll_runner_threads(self._handle))
        self.prompts_apart = bool(lib.ll_runner_prompts_apart(self._handle))
        self._whole, self._parts = _Track(config), _Track(config)
        self._done = ffi.new("int32_t *")
        self._sampling = ffi.new("ll_sampling[]", config.max_rows)
        self._prepared: WeakKeyDictionary[Sequence, _Prepared] = WeakKeyDictionary()
        self._filler: ThreadPoolExecutor | None = None

    def step(self, rows: list[Row]) -> list[Sampled]:
        """One drawn token for every row that samples, in their order. Masks are filled while the model computes: they
        depend on the tokens so far alone."""
        batch = self._take(self._whole, rows)
        try:
            check(lib.ll_forward(self._handle, batch))
        finally:
            self._whole.wait()
        return self._give(self._whole)

    def begin(self, rows: list[Row]) -> None:
        """Begin a pass that advance() computes, in the place of one that is not done. Steps may be computed meanwhile.
        Until it is done the KV blocks of these rows stay theirs."""
        check(lib.ll_begin(self._handle, self._take(self._parts, rows)))

    def advance(self, seconds: float) -> list[Sampled] | None:
        """Go on with that pass for about so long, at least one layer. When it is done, what step() returns."""
        check(lib.ll_advance(self._handle, seconds, self._done))
        if not self._done[0]:
            return None
        self._parts.wait()
        return self._give(self._parts)

    def logits(self, tokens: array[int], blocks: list[int]) -> NDArray[np.float32]:
        """Logits (len(tokens), n_vocab) after each token of a text, whose KV goes to `blocks`."""
        seq = Sequence(tokens, SamplingParams(), max_length=len(tokens))
        seq.blocks.extend(blocks)
        out = np.empty((len(tokens), self.n_vocab), np.float32)
        chunk = min(self.config.max_tokens, self.config.max_samples)
        for start, stop in pairwise([*range(0, len(tokens), chunk), len(tokens)]):
            batch = self._whole.batch.fill([Row(seq, start, stop - start, False)], every_token=True)
            check(lib.ll_forward(self._handle, batch))
            check(lib.ll_logits(self._handle, _pointer("float *", out[start:stop])))
        return out

    def work(self) -> list[Work]:
        """What the operations of all steps so far took, in the order of a step. Needs RunnerConfig.profile."""
        found = ffi.new("ll_op_work[]", lib.LL_OPS)
        check(lib.ll_runner_work(self._handle, found))
        return [Work(text(op.name), op.calls, op.nanoseconds, op.multiply_adds, op.bytes) for op in found]

    def _take(self, track: _Track, rows: list[Row]) -> Any:
        """The ll_batch * of these rows; their masks are being filled."""
        ordered = sorted(rows, key=_of_prompt)
        if track.filling is not None:
            wait([track.filling])  # of a pass that was given up
        track.rows, track.seqs = rows, [row.seq for row in ordered if row.samples]
        track.filling = None
        if masked := [(i, seq.mask) for i, seq in enumerate(track.seqs) if seq.mask is not None]:
            if not track.masks.size:
                track.masks = np.zeros((self.config.max_rows, -(-self.n_vocab // 32)), np.uint32)
            self._filler = self._filler or ThreadPoolExecutor(2, "localllm-masks")  # one for each track
            track.filling = self._filler.submit(_fill, track.masks, masked)
        return track.batch.fill(ordered)

    def _give(self, track: _Track) -> list[Sampled]:
        drawn = dict(zip(track.seqs, self._draw(track), strict=True))
        return [drawn[row.seq] for row in track.rows if row.samples]

    def _draw(self, track: _Track) -> list[Sampled]:
        if not (seqs := track.seqs):
            return []
        for i, seq in enumerate(seqs):
            self._prepare(i, seq, track.masks)
        n, most = len(seqs), max(1, *(seq.params.logprobs or 0 for seq in seqs))
        tokens, logprobs = np.empty(n, np.int32), np.empty(n, np.float32)
        top_ids, top_logprobs = np.empty((n, most), np.int32), np.empty((n, most), np.float32)
        pointers = _pointer("int32_t *", tokens), _pointer("float *", logprobs)
        tops = _pointer("int32_t *", top_ids), _pointer("float *", top_logprobs)
        check(lib.ll_sample(self._handle, self._sampling, n, most, *pointers, *tops))
        drawn = []
        for i, (seq, token) in enumerate(zip(seqs, tokens.tolist(), strict=True)):
            if (count := seq.params.logprobs) is None or token < 0:
                drawn.append(Sampled(token))
            else:
                top = tuple(zip(top_ids[i, :count].tolist(), top_logprobs[i, :count].tolist(), strict=True))
                drawn.append(Sampled(token, float(logprobs[i]), top))
        return drawn

    def _prepare(self, i: int, seq: Sequence, masks: NDArray[np.uint32]) -> None:
        """Fill entry `i` of the sampling array: what never changes is copied, the rest follows the sequence."""
        prepared = self._prepared.get(seq)
        if prepared is None:
            prepared = self._prepared[seq] = _Prepared(seq)
        self._sampling[i] = prepared.struct[0]
        entry = self._sampling[i]
        entry.logits, entry.position = i, len(seq.tokens)
        if prepared.reads_history:
            entry.history = ffi.cast("int32_t *", seq.tokens.buffer_info()[0])  # stays put until the next append
            entry.n_history, entry.n_prompt = len(seq.tokens), seq.prompt_length
        if seq.mask is not None:
            entry.mask = _pointer("uint32_t *", masks[i])


def _fill(bits: NDArray[np.uint32], masks: list[tuple[int, Mask]]) -> None:
    for i, mask in masks:
        mask.fill(memoryview(bits[i]).cast("B"))


def _of_prompt(row: Row) -> bool:
    return not row.generated


class _Batch:
    """An ll_batch and the arrays it points to, which are written through views: for the few numbers of a row that is
    several times quicker than through numpy."""

    def __init__(self, config: RunnerConfig) -> None:
        self._width = -(-config.context // config.block_size)
        sizes = {
            "tokens": config.max_tokens,
            "row_start": config.max_rows + 1,
            "row_pos": config.max_rows,
            "blocks": config.max_rows * self._width,
            "samples": config.max_samples,
        }
        arrays = {name: array("i", [0]) * size for name, size in sizes.items()}
        views = {name: memoryview(values) for name, values in arrays.items()}
        self.tokens, self.row_start, self.row_pos, self.blocks, self.samples = views.values()
        pointers = {name: ffi.from_buffer("int32_t *", values) for name, values in arrays.items()}
        self.struct = ffi.new("ll_batch *", {"max_blocks": self._width, **pointers})

    def fill(self, rows: list[Row], every_token: bool = False) -> Any:
        """The ll_batch * of these rows, those of generated tokens first. `every_token` asks for the logits of each
        token, not of each row's last."""
        end, generated, samples = 0, 0, array("i")
        for i, row in enumerate(rows):
            seq, start, end = row.seq, end, end + row.count
            self.tokens[start:end] = seq.tokens[row.start : row.start + row.count]
            self.row_start[i + 1] = end
            self.row_pos[i] = row.start
            at = i * self._width
            self.blocks[at : at + len(seq.blocks)] = seq.blocks
            if row.generated:
                assert generated == start, "rows of prompts come last"
                generated = end
            if row.samples:
                samples.append(end - 1)
        if every_token:
            samples = array("i", range(end))
        self.samples[: len(samples)] = samples
        self.struct.n_rows, self.struct.n_tokens, self.struct.n_samples = len(rows), end, len(samples)
        self.struct.n_generated = generated
        return self.struct


class _Track:
    """A batch under way, and what is needed to draw tokens when it is done."""

    def __init__(self, config: RunnerConfig) -> None:
        self.batch = _Batch(config)
        self.rows: list[Row] = []
        self.seqs: list[Sequence] = []  # those that sample, in the batch's order
        self.masks = np.zeros((0, 0), np.uint32)  # (max_rows, ceil(n_vocab / 32)), once someone has a mask
        self.filling: Future[None] | None = None

    def wait(self) -> None:
        """Until its masks are filled."""
        if self.filling is not None:
            self.filling.result()


class _Prepared:
    """The part of an ll_sampling that stays the same as long as its sequence lives."""

    def __init__(self, seq: Sequence) -> None:
        params = seq.params
        self.bias_ids = np.fromiter(params.logit_bias, np.int32, len(params.logit_bias))
        self.bias = np.fromiter(params.logit_bias.values(), np.float32, len(params.logit_bias))
        penalties = (params.repeat_penalty, params.presence_penalty, params.frequency_penalty)
        self.reads_history = penalties != (1, 0, 0)
        names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
        fields = {name: getattr(params, name) for name in names}
        if params.logit_bias:
            fields["bias_ids"] = _pointer("int32_t *", self.bias_ids)
            fields["bias"] = _pointer("float *", self.bias)
            fields["n_bias"] = len(self.bias)
        fields |= {"seed": seq.seed, "choice": seq.choice, "n_top": -1 if params.logprobs is None else params.logprobs}
        self.struct = ffi.new("ll_sampling *", fields)


def _close(handle: Any, process: int) -> None:
    """A forked child has the memory of a runner but not its threads, for which closing would wait without end."""
    if os.getpid() == process:
        lib.ll_runner_close(handle)


def _pointer(kind: str, values: NDArray[Any]) -> Any:
    """To the first of `values`, which the caller keeps alive."""
    return ffi.from_buffer(kind, values)
