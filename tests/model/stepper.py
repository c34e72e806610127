"""A runner driven by hand: sequences with block tables of the test's choosing, steps of any shape, raw logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from localllm.bindings import check, ffi, lib
from localllm.modelfile import ModelFile

_ARRAYS: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()  # that a batch points to
BatchRow = tuple[Sequence[int], int, Sequence[int]]  # tokens, position of the first, block table

KV_TYPES = {"f32": lib.LL_F32, "f16": lib.LL_F16, "bf16": lib.LL_BF16, "q8_0": lib.LL_Q8_0}


class Stepper:
    """Opens a model and a runner on it."""

    def __init__(
        self,
        path: str | Path,
        kv_type: str = "f16",
        threads: int = 1,
        n_blocks: int = 64,
        device: int = 0,
        block_size: int = 32,
    ) -> None:
        self.file = ModelFile(path)
        self.model = self._open("ll_model **", lib.ll_model_open, self.file.handle)
        self.info = ffi.new("ll_model_info *")
        lib.ll_model_get_info(self.model, self.info)
        self.config = ffi.new("ll_runner_config *", {
            "device": device, "threads": threads, "kv_type": KV_TYPES[kv_type], "block_size": block_size,
            "n_blocks": n_blocks, "max_tokens": 512, "max_rows": 64, "max_samples": 512,
        })  # fmt: skip
        self.block_size = block_size
        self.runner = self._open("ll_runner **", lib.ll_runner_open, self.model, self.config)

    @staticmethod
    def _open(kind: str, function: Any, *args: Any) -> Any:
        out = ffi.new(kind)
        check(function(out, *args))
        return out[0]

    def close(self) -> None:
        lib.ll_runner_close(self.runner)
        lib.ll_model_close(self.model)
        self.file.close()

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, rows: Sequence[BatchRow], samples: Sequence[int] | None = None) -> np.ndarray:
        """Logits (samples, vocabulary) of the step; without `samples` those of every token."""
        batch = self._batch(rows, samples)
        check(lib.ll_forward(self.runner, batch))
        return self._logits(batch)

    def begin(self, rows: Sequence[BatchRow], samples: Sequence[int] | None = None) -> None:
        """A pass that advance() computes."""
        self.pass_ = self._batch(rows, samples)
        check(lib.ll_begin(self.runner, self.pass_))

    def advance(self, seconds: float = 0.0) -> np.ndarray | None:
        """Its logits, when it is done."""
        done = ffi.new("int32_t *")
        check(lib.ll_advance(self.runner, seconds, done))
        return self._logits(self.pass_) if done[0] else None

    def _batch(self, rows: Sequence[BatchRow], samples: Sequence[int] | None) -> Any:
        """An ll_batch *, which its arrays live as long as."""
        tokens = np.array([t for row in rows for t in row[0]], np.int32)
        start = np.cumsum([0] + [len(row[0]) for row in rows]).astype(np.int32)
        width = max(len(row[2]) for row in rows)
        blocks = np.full((len(rows), width), -1, np.int32)
        for r, row in enumerate(rows):
            blocks[r, : len(row[2])] = row[2]
        wanted = np.arange(len(tokens), dtype=np.int32) if samples is None else np.array(samples, np.int32)
        position = np.array([row[1] for row in rows], np.int32)
        arrays = {"tokens": tokens, "row_start": start, "row_pos": position, "blocks": blocks, "samples": wanted}
        batch = ffi.new("ll_batch *", {"n_rows": len(rows), "n_tokens": len(tokens), "n_samples": len(wanted),
                                       "max_blocks": width})  # fmt: skip
        _ARRAYS[batch] = [ffi.from_buffer("int32_t[]", array) for array in arrays.values()]
        for name, buffer in zip(arrays, _ARRAYS[batch], strict=True):
            setattr(batch, name, buffer)
        return batch

    def _logits(self, batch: Any) -> np.ndarray:
        out = np.empty((batch.n_samples, self.info.n_vocab), np.float32)
        check(lib.ll_logits(self.runner, ffi.from_buffer("float[]", out)))
        return out

    def logits(self, tokens: Sequence[int], chunk: int = 512, blocks: Sequence[int] | None = None) -> np.ndarray:
        """Logits of one sequence alone, computed in chunks."""
        table = blocks if blocks is not None else range(-(-len(tokens) // self.block_size))
        parts = [self.step([(tokens[i : i + chunk], i, list(table))]) for i in range(0, len(tokens), chunk)]
        return np.concatenate(parts)
