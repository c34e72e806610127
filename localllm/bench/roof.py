"""The machine's roof: measured, not looked up."""

from __future__ import annotations

import os
from typing import NamedTuple

from localllm.bindings import check, ffi, lib
from localllm.memory import free_memory

LEAST, MOST = 64 << 20, 2 << 30  # bytes to read


class Roof(NamedTuple):
    """None: the machine has no such unit, or it is that of a GPU, which is not measured."""

    read_gb_s: float | None = None
    bf16_tflops: float | None = None
    int8_tops: float | None = None

    def share(self, bytes_per_second: float, multiply_adds_per_second: float) -> float | None:
        """Of the limit that is nearer."""
        shares = []
        if self.read_gb_s:
            shares.append(1e-9 * bytes_per_second / self.read_gb_s)
        if self.int8_tops:
            shares.append(2e-12 * multiply_adds_per_second / self.int8_tops)
        return max(shares, default=None)


def measure(threads: int) -> Roof:
    """Takes about a second. The memory that is read is twice the last cache, or a quarter of what is free."""
    try:
        cache = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (ValueError, OSError):  # not on this system
        cache = 0
    size = max(LEAST, min(max(2 * cache, LEAST * 4), MOST, free_memory() // 4))
    found = ffi.new("ll_roof *")
    check(lib.ll_measure_roof(threads, size, found))
    return Roof(found.read_gb_s or None, found.bf16_tflops or None, found.int8_tops or None)
