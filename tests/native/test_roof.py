"""ll_measure_roof: a figure is present where the level has a unit, and of a size that a processor can have."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from localllm.bindings import check, ffi, lib, text
from localllm.errors import InvalidArgument

MB = 1 << 20


@pytest.mark.every_level
def test_each_level_has_the_roof_of_its_units() -> None:
    out = ffi.new("ll_roof *")
    check(lib.ll_measure_roof(1, 64 * MB, out))
    level, features = text(lib.ll_cpu_level()), text(lib.ll_cpu_features()).split()
    assert 0.01 < out.read_gb_s < 10_000
    assert (out.int8_tops > 0) == (level != "scalar")
    assert (out.bf16_tflops > 0) == (level == "amx" or (level == "avx512" and "avx512_bf16" in features))
    assert out.int8_tops < 100 and out.bf16_tflops < 100


def test_wider_units_have_a_higher_roof() -> None:
    """Each level by its best of two tries, on one core."""
    program = (
        "import json; from localllm.bindings import *; o = ffi.new('ll_roof *'); found = []\n"
        f"for i in range(2): check(lib.ll_measure_roof(1, {64 * MB}, o)); found.append(o.int8_tops)\n"
        "print(json.dumps([text(lib.ll_cpu_level()), max(found)]))"
    )
    tops = {}
    for level in ("avx2", "avx512", "amx"):
        environment = {**os.environ, "LOCALLLM_CPU": level}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        name, found = json.loads(done.stdout)
        tops[name] = found
    found = [tops[level] for level in ("avx2", "avx512", "amx") if level in tops]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("threads", "size", "names"), [(-1, 64 * MB, "threads"), (1025, 64 * MB, "threads"), (1, MB, "buffer_bytes")]
)
def test_bad_arguments_are_named(threads: int, size: int, names: str) -> None:
    with pytest.raises(InvalidArgument, match=names):
        check(lib.ll_measure_roof(threads, size, ffi.new("ll_roof *")))
