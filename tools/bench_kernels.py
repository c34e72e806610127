#!/usr/bin/env python3
"""Speed of single products on one core: every tensor type and instruction-set level at one token and at many.

    python tools/bench_kernels.py [--levels avx2,avx512] [--types Q4_0,Q4_K] [--tokens 1,8,512]

Level "prompts" is what level amx multiplies the tokens of prompts with; float32 weights have none.

Prints billions of weights times tokens per second, and for one token the bytes of weights read, of which a core can
have only as many as memory gives. Times are the calling thread's processor time, the best of several, so another
program on the machine blurs them less. Weights are 512 MB at one token, so that no cache holds them, and 64 MB below 64
tokens, which no second-level cache does.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from localllm.bindings import check, ffi, lib, text
from localllm.errors import LocalLLMError

COLUMNS = 2048
# bytes and values of a block
BLOCKS = {
    "F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "Q4_0": (18, 32), "Q4_1": (20, 32), "Q5_0": (22, 32),
    "Q5_1": (24, 32), "Q8_0": (34, 32), "Q2_K": (84, 256), "Q3_K": (110, 256), "Q4_K": (144, 256),
    "Q5_K": (176, 256), "Q6_K": (210, 256), "IQ4_NL": (18, 32), "IQ4_XS": (136, 256), "MXFP4": (17, 32),
}  # fmt: skip


def weights(row_bytes: int, rows: int) -> np.ndarray:
    """(rows, row_bytes): bytes that are ordinary numbers in every format: no infinities, nothing denormal."""
    rng = np.random.default_rng(1)
    return np.resize(rng.integers(0x31, 0x37, 1 << 20, dtype=np.uint8), (rows, row_bytes))


def seconds(level: str, name: str, w: np.ndarray, tokens: int, repeats: int) -> float:
    x = np.random.default_rng(2).standard_normal((tokens, COLUMNS)).astype(np.float32)
    out = np.empty((tokens, len(w)), np.float32)
    best = float("inf")
    at, product = ("amx", lib.ll_test_prompt_matmul) if level == "prompts" else (level, lib.ll_test_matmul)
    for _ in range(repeats):
        start = time.thread_time()
        check(
            product(
                at.encode(), getattr(lib, f"LL_{name}"), ffi.cast("void *", w.ctypes.data), len(w), COLUMNS,
                ffi.cast("float *", x.ctypes.data), tokens, ffi.cast("float *", out.ctypes.data),
            )
        )  # fmt: skip
        best = min(best, time.thread_time() - start)
    return best


def check_level(level: str, parser: argparse.ArgumentParser) -> None:
    try:
        seconds(level, "Q4_0", weights(COLUMNS // 32 * 18, 16), 1, 1)
    except LocalLLMError as error:
        parser.error(f"--levels: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", default=text(lib.ll_cpu_level()))
    parser.add_argument("--types", default=",".join(BLOCKS))
    parser.add_argument("--tokens", default="1,8,512")
    args = parser.parse_args()
    counts = [int(n) for n in args.tokens.split(",") if n.isdecimal() and 0 < int(n) < 10_000]
    if len(counts) < len(args.tokens.split(",")):
        parser.error(f"--tokens must be numbers from 1 to 9999, not {args.tokens!r}")
    if unknown := [name for name in args.types.split(",") if name not in BLOCKS]:
        parser.error(f"--types: {unknown[0]!r} is none of {', '.join(BLOCKS)}")
    for level in args.levels.split(","):
        check_level(level, parser)
    print("level   type   " + "".join(f" | {n} tokens, G/s" + (" (GB/s)" if n == 1 else "") for n in counts))
    for level in args.levels.split(","):
        for name in args.types.split(","):
            if (level, name) == ("prompts", "F32"):
                continue
            size, block = BLOCKS[name]
            row_bytes = COLUMNS // block * size
            line = f"{level:7} {name:7}"
            for n in counts:
                rows = ((512 if n == 1 else 64) << 20) // row_bytes // 64 * 64 if n < 64 else 2048
                took = seconds(level, name, weights(row_bytes, rows), n, 8 if n < 64 else 4)
                line += f" | {rows * COLUMNS * n / took / 1e9:6.1f}"
                line += f" ({rows * row_bytes / took / 1e9:5.2f})" if n == 1 else ""
            print(line, flush=True)


if __name__ == "__main__":
    main()
