"""Checks the CUDA device on a machine that has one: its logits against float64 and against the CPU, and the promise
that a token's bits depend on its own sequence alone. Prints a table.

    python tools/gpu_check.py [--quick]

Needs the extra `test` and a library built with CUDA (LOCALLLM_LIBRARY names another than the package's). The device
does the CPU's arithmetic in the CPU's order, so the same bits are expected of both, not merely close ones; but for
level amx, whose attention has bits of its own, so here the CPU is held to avx512.
Exit status: 0 all passed, 1 something failed, 3 there is no GPU here and nothing was verified.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from localllm.bindings import lib, text
from localllm.errors import LocalLLMError
from tests.model import reference
from tests.model.stepper import Stepper
from tests.model.test_bit_identity import assert_suspended_passes_are_whole_ones, crowd
from tests.model.test_logits import ARCHS, SHAPES, random_tokens, relative
from tests.tiny_models import write_tiny

NO_GPU = 3
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
         "IQ4_NL", "IQ4_XS", "MXFP4")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One line of the table. figure says what was measured."""

    check: str
    model: str
    passed: bool
    figure: str


def device(path: Path, kv_type: str = "f16", block_size: int = 32) -> Stepper:
    return Stepper(path, kv_type=kv_type, device=lib.LL_CUDA, n_blocks=128, block_size=block_size)


def differing(a: np.ndarray, b: np.ndarray) -> int:
    """How many of two arrays' float32 values differ in any bit."""
    return int((a.view(np.uint32) != b.view(np.uint32)).sum())


def compared(check: str, model: str, got: np.ndarray, want: np.ndarray) -> Result:
    count = differing(got, want)
    return Result(check, model, count == 0, f"{count} of {got.size} values differ")


def check_logits(path: Path, quick: bool) -> Iterator[Result]:
    """Float32 models of every architecture and shape against float64, and the CPU's bits."""
    for arch in ARCHS[-1:] if quick else ARCHS:
        for shape, settings in SHAPES.items():
            model = write_tiny(path, arch=arch, layers=1 if quick else 2, **settings)
            tokens = random_tokens(50 if quick else 150)
            with device(path, "f32") as gpu, Stepper(path, kv_type="f32") as cpu:
                got, want = gpu.logits(tokens, chunk=64), cpu.logits(tokens)
            error = relative(got, reference.logits(model, tokens))
            yield Result("logits, float64", f"{arch}, {shape}", error < 2e-6, f"relative error {error:.1e}")
            yield compared("logits, CPU's bits", f"{arch}, {shape}", got, want)


def check_types(path: Path, quick: bool) -> Iterator[Result]:
    """Every type of weights: the CPU's bits, and the same bits for any chunk, block table and company."""
    size = 16 if quick else 32  # so that even few tokens cross a border of blocks
    for i, dtype in enumerate(TYPES):
        arch = ARCHS[i % len(ARCHS)]
        write_tiny(path, arch=arch, layers=1 if quick else 2, embd=256, heads=8, kv_heads=2, ff=512, dtype=dtype)
        tokens = random_tokens(20 if quick else 75)
        name = f"{arch}, {dtype}"
        with device(path, block_size=size) as gpu, Stepper(path, block_size=size) as cpu:
            alone = gpu.logits(tokens)
            yield compared("logits, CPU's bits", name, alone, cpu.logits(tokens))
            for chunk in (7,) if quick else (1, 7, 64):
                got = gpu.logits(tokens, chunk, blocks=[33, 2, 17, 40, 5])
                yield compared(f"identity, chunks of {chunk}", name, got, alone)
            if quick:
                continue
            for neighbours in (1, 7, 31):
                got = crowd(gpu, tokens, neighbours)
                yield compared(f"identity, among {neighbours}", name, got, alone)


def check_cache(path: Path, quick: bool) -> Iterator[Result]:
    """Types of the KV cache, windows, block sizes, a shared prefix."""
    tokens = random_tokens(70 if quick else 100)
    for kv_type in ("f16", "bf16", "f32", "q8_0"):
        for window in (24,) if quick else (0, 24):
            for block_size in (16, 32):
                write_tiny(path, arch="qwen3", head_dim=32, sliding_window=window, dtype="Q8_0", layers=1)
                name = f"KV {kv_type}, window {window}, blocks of {block_size}"
                with device(path, kv_type, block_size) as gpu, Stepper(path, kv_type, block_size=block_size) as cpu:
                    alone = gpu.logits(tokens)
                    yield compared("logits, CPU's bits", name, alone, cpu.logits(tokens))
                    table = [8, 1, 12, 4, 30, 7, 2]
                    yield compared("identity, chunks of 9", name, gpu.logits(tokens, 9, blocks=table), alone)
    write_tiny(path, dtype="Q4_0", layers=1)
    with device(path) as gpu:
        alone = gpu.logits(tokens, blocks=[0, 1, 2, 3])
        shared = gpu.step([(tokens[64:], 64, [0, 1, 40, 41])])
    yield compared("identity, shared prefix", "Q4_0", shared, alone[64:])


def check_passes(path: Path, quick: bool) -> Iterator[Result]:
    """Passes over prompts that are suspended after every layer, with steps of others in between."""
    for dtype in ("Q8_0",) if quick else ("F32", "Q8_0", "Q4_K"):
        shape = {} if quick else {"embd": 256, "heads": 8, "kv_heads": 2, "ff": 512}
        write_tiny(path, dtype=dtype, layers=1 if quick else 3, **shape)
        try:
            assert_suspended_passes_are_whole_ones(path, lib.LL_CUDA, (9, 5, 12) if quick else (75, 40, 90))
            said = ""
        except AssertionError as error:
            said = str(error) or "bits differ"
        yield Result("identity, suspended passes", dtype, not said, said)


def check_long_rows(path: Path, quick: bool) -> Iterator[Result]:
    """Rows of more than one split of attention's keys (native/cpu/attention.h), with and without a window."""
    tokens = random_tokens(1030 if quick else 2300)
    for window in (0, 500):
        write_tiny(path, heads=1 if quick else 4, kv_heads=1, layers=1, context=4096, sliding_window=window)
        with device(path) as gpu, Stepper(path, n_blocks=128) as cpu:
            alone = gpu.logits(tokens)
            yield compared("logits, CPU's bits", f"{len(tokens)} tokens, window {window}", alone, cpu.logits(tokens))
            for at in (1023, 1024, len(tokens) - 1):
                last = gpu.step([(tokens[at : at + 1], at, list(range(-(-len(tokens) // 32))))])
                yield compared("identity, one token", f"at {at}, window {window}", last, alone[at : at + 1])


def check_memory(path: Path, quick: bool) -> Iterator[Result]:
    """More memory than there is: an error with both numbers, and the device works on."""
    write_tiny(path, dtype="Q8_0", layers=1)
    try:
        Stepper(path, n_blocks=1 << 26, device=lib.LL_CUDA).close()
        said = "no error"
    except LocalLLMError as error:
        said = str(error)
    yield Result("memory that is not there", "2^26 KV blocks", "are needed" in said, said)
    with device(path) as gpu, Stepper(path) as cpu:
        yield compared("and afterwards", "Q8_0", gpu.logits([1, 2, 3]), cpu.logits([1, 2, 3]))


CHECKS: tuple[Callable[[Path, bool], Iterator[Result]], ...] = (
    check_logits, check_types, check_cache, check_passes, check_long_rows, check_memory)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller models and fewer combinations")
    quick = parser.parse_args().quick
    print(text(lib.ll_cuda_status()))
    if lib.ll_cuda_devices() == 0:
        print("no GPU: nothing was run, and the CUDA device is not verified here")
        return NO_GPU
    if text(lib.ll_cpu_level()) == "amx":
        os.environ["LOCALLLM_CPU"] = "avx512"
    failed = count = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for check in CHECKS:
            for result in check(Path(folder) / "model.gguf", quick):
                count += 1
                failed += not result.passed
                verdict = "passed" if result.passed else "FAILED"
                print(f"{verdict}  {result.check:26}  {result.model:36}  {result.figure}", flush=True)
    print(f"{count} checks, {failed} failed, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
