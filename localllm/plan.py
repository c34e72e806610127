"""How much memory a model will take, decided before any of it is taken: weights, KV blocks, scratch.

The core counts the bytes (ll_plan_runner uses the arithmetic that allocates); this file decides the rest. One request
must fit with its whole context. The context is the one asked for, else the model's own as far as memory allows. The
pool for all requests is kv_memory, if that is given and there, else the smaller of context x max_batch and half of what
is free after the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from localllm.bindings import check, ffi, lib, text
from localllm.config import ModelOptions
from localllm.engine.runner import RunnerConfig
from localllm.errors import DeviceError, InvalidArgument, MemoryLimitError
from localllm.memory import free_memory

BLOCK_SIZE = 16  # tokens: small blocks share short prefixes
LOGITS_PER_STEP = 16  # at least so many tokens of a step can have logits
MAX_BLOCKS = 1 << 26


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in bytes, unless they are of tokens."""

    device: str
    threads: int  # 0: one per core this process may use
    kv_type: str
    context: int  # most tokens of one request
    max_batch: int  # most requests in one step
    step_tokens: int  # most tokens of prompts that are computed at once
    block_size: int  # tokens of a KV block
    n_blocks: int
    weight_bytes: int  # in the file's map on a CPU; copied on a GPU
    kv_bytes: int
    scratch_bytes: int

    def __str__(self) -> str:
        held = "mapped from the file" if self.device == "cpu" else "copied to the device"
        return (
            f"weights {size(self.weight_bytes)} ({held}), KV cache {size(self.kv_bytes)} "
            f"({self.n_blocks * self.block_size} tokens of {self.kv_type}), scratch {size(self.scratch_bytes)}; "
            f"context {self.context}, {self.max_batch} requests a step, {self.step_tokens} tokens of prompts at once, "
            f"on {self.device}"
        )

    def config(self) -> RunnerConfig:
        """What opens a runner of this plan."""
        most = max(self.step_tokens, self.max_batch)  # each request's next token is computed in any step
        kv_types = {"f16": lib.LL_F16, "bf16": lib.LL_BF16, "f32": lib.LL_F32, "q8_0": lib.LL_Q8_0}
        return RunnerConfig(
            context=self.context,
            block_size=self.block_size,
            n_blocks=self.n_blocks,
            max_tokens=most,
            max_rows=self.max_batch,
            max_samples=min(most, max(self.max_batch, LOGITS_PER_STEP)),
            threads=self.threads,
            device=lib.LL_CUDA if self.device == "cuda" else lib.LL_CPU,
            kv_type=kv_types[self.kv_type],
        )


def size(count: int) -> str:
    """Bytes for people: 12.3 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def make_plan(model: Any, options: ModelOptions, free: int | None = None) -> Plan:
    """model is an `ll_model *`; free is the memory to plan with, by default what this process can still take.
    MemoryLimitError states what was needed and what there is."""
    info = ffi.new("ll_model_info *")
    lib.ll_model_get_info(model, info)
    draft = _draft(info, options)
    sizes = ffi.new("ll_plan *")
    check(lib.ll_plan_runner(model, draft.config().native(), sizes))
    taken = int(sizes.weight_bytes) + int(sizes.scratch_bytes)
    left = max(0, (free_memory() if free is None else free) - taken)
    block = int(sizes.block_bytes)
    wanted = options.context or info.n_ctx
    n_blocks = _pool(options, draft.device, wanted, block, left)
    context = min(wanted, n_blocks * BLOCK_SIZE)
    if options.context is not None and context < wanted:
        raise MemoryLimitError(
            f"context {wanted} needs {size(_blocks(wanted) * block)} of KV cache, but there is room for "
            f"{size(n_blocks * block)} ({context} tokens)"
        )
    return replace(
        draft,
        context=context,
        n_blocks=n_blocks,
        weight_bytes=int(sizes.weight_bytes),
        kv_bytes=n_blocks * block,
        scratch_bytes=int(sizes.scratch_bytes),
    )


def _pool(options: ModelOptions, device: str, context: int, block: int, left: int) -> int:
    """Blocks of the pool."""
    if options.kv_memory is not None:
        n_blocks = options.kv_memory // block
        if n_blocks < 1:
            raise MemoryLimitError(f"kv_memory {options.kv_memory} does not hold one KV block of {block} bytes")
        if options.kv_memory > left and device == "cpu":  # a GPU's own memory is counted where it is taken
            raise MemoryLimitError(f"kv_memory {options.kv_memory} is {size(options.kv_memory)}, but there are only "
                                   f"{size(left)} left beside the weights and scratch")  # fmt: skip
        return min(n_blocks, MAX_BLOCKS)
    one = _blocks(context)
    n_blocks = min(one * options.max_batch, max(left // 2 // block, min(one, left // block) if options.context else 0))
    if n_blocks < 1:
        raise MemoryLimitError(f"no memory for a KV cache: one block takes {size(block)}, {size(left)} are left")
    return min(n_blocks, MAX_BLOCKS)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)


def _draft(info: Any, options: ModelOptions) -> Plan:
    """The plan without its sizes."""
    device = options.device
    if device == "auto":
        device = "cuda" if lib.ll_cuda_devices() > 0 else "cpu"
    if device == "cuda" and lib.ll_cuda_devices() < 1:
        raise DeviceError(text(lib.ll_cuda_status()))
    if options.context is not None and options.context > info.n_ctx:
        raise InvalidArgument(f"context {options.context} is more than the model's own {info.n_ctx}")
    return Plan(
        device=device,
        threads=options.threads or 0,
        kv_type=options.kv_type,
        context=0,
        max_batch=options.max_batch,
        step_tokens=options.step_tokens,
        block_size=BLOCK_SIZE,
        n_blocks=1,
        weight_bytes=0,
        kv_bytes=0,
        scratch_bytes=0,
    )
