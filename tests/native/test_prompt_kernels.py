"""Products of the tokens of prompts, at the level that has an arithmetic of its own for them: against that arithmetic
done by numpy, bit for bit, and against float64; a token's bits whoever else is there; numbers that are not finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType

from localllm.bindings import check, ffi, lib, text
from localllm.errors import UnsupportedError
from tests.native.test_kernels import HALVES, SHAPES, Guarded, columns, decoded, same_bits, seeded, weights

LEVEL = "amx"
TYPES = ["F16", "BF16", *HALVES]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    buffers = Guarded()
    yield buffers
    buffers.release()


@pytest.fixture(autouse=True)
def tiles() -> None:
    if (best := text(lib.ll_cpu_level())) != LEVEL:
        pytest.skip(f"this CPU runs levels up to {best}, not {LEVEL}")


def multiply(name: str, raw: np.ndarray[Any, Any], x: Floats, guarded: Guarded, slack: int = 0) -> Floats:
    """(n, rows): the library's product of prompt tokens (n, cols) and the rows of `raw`."""
    shape = (len(x), len(raw))
    out = guarded.array(np.full(shape, 7, np.float32))
    w, inputs = guarded.array(raw, slack), guarded.array(x)
    kind = GGMLQuantizationType[name]
    where = ffi.cast("float *", inputs), len(x), ffi.cast("float *", out)
    check(lib.ll_test_prompt_matmul(LEVEL.encode(), kind, w, len(raw), x.shape[1], *where))
    return np.frombuffer(ffi.buffer(out, 4 * shape[0] * shape[1]), np.float32).reshape(shape).copy()


def bf16(x: Floats) -> Floats:
    """Rounded to the nearest of bfloat16, ties to even."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def parts(name: str, w: Floats, x: Floats) -> list[tuple[Floats, Floats]]:
    """What is multiplied with what, in its order."""
    high, top = bf16(w), bf16(x)
    if name == "BF16":
        return [(w, top), (w, bf16(x - top))]
    if name == "F16":
        return [(high, top), (high, bf16(x - top)), (bf16(w - high), top)]
    return [(high, top)]


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """Of bfloat16 factors: their product is exact in float64."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def tile_sums(name: str, w: Floats, x: Floats) -> Floats:
    """(n, rows), as TDPBF16PS adds them (Intel, Instruction Set Extensions Programming Reference): of 32 columns the
    even ones in a chain of fused multiply-adds, the odd ones in another; their sum is added."""
    fill = [(0, 0), (0, -x.shape[1] % 32)]
    pairs = [(np.pad(a, fill), np.pad(b, fill)) for a, b in parts(name, w, x)]
    acc = np.zeros((len(x), len(w)), np.float32)
    for first in range(0, pairs[0][0].shape[1], 32):
        for a, b in pairs:
            chains = np.zeros((2, len(x), len(w)), np.float32)
            for c in range(32):
                chains[c % 2] = fma(a[None, :, first + c], b[:, None, first + c], chains[c % 2])
            acc = acc + (chains[0] + chains[1])
    return acc


@pytest.mark.parametrize("name", TYPES)
def test_bits_are_those_of_the_documented_arithmetic(name: str, guarded: Guarded) -> None:
    rng = seeded()
    for turn, (rows, count, n) in enumerate(SHAPES):
        raw = weights(rng, name, rows, columns(name, count))
        x = rng.standard_normal((n, columns(name, count))).astype(np.float32)
        expected = tile_sums(name, decoded(name, raw).reshape(rows, -1), x)
        assert same_bits(multiply(name, raw, x, guarded, slack=turn % 3), expected), (rows, count, n)
        guarded.release()


@pytest.mark.parametrize("name", TYPES)
def test_error_against_float64(name: str, guarded: Guarded) -> None:
    """Two roundings to eight bits of quantized weights' products; float weights keep sixteen bits of both factors."""
    rng = seeded()
    raw, x = weights(rng, name, 70, 1024), rng.standard_normal((21, 1024)).astype(np.float32)
    w = decoded(name, raw).reshape(70, -1).astype(np.float64)
    error = np.abs(multiply(name, raw, x, guarded) - x.astype(np.float64) @ w.T)
    each = 2.0**-15 if name in ("F16", "BF16") else 2.0**-8 + 2.0**-18
    assert (error <= each * (np.abs(x.astype(np.float64)) @ np.abs(w).T)).all()


@pytest.mark.parametrize("wild", [False, True], ids=["usual", "any_bytes"])
@pytest.mark.parametrize("name", ["F16", "BF16", "Q4_0", "Q4_K", "Q6_K", "Q8_0", "Q2_K"])
def test_a_tokens_bits_are_its_own(name: str, wild: bool, guarded: Guarded) -> None:
    """The same token alone and among 1 to 70 others, the same row alone and among others."""
    rng = seeded()
    raw, x = weights(rng, name, 67, 768, wild), rng.standard_normal((70, 768)).astype(np.float32)
    alone = np.concatenate([multiply(name, raw, x[t : t + 1], guarded) for t in range(len(x))])
    for n in (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 70):
        assert same_bits(multiply(name, raw, x[:n], guarded), alone[:n]), n
        guarded.release()
    for row in range(len(raw)):
        assert same_bits(multiply(name, raw[row : row + 1], x, guarded), alone[:, row : row + 1]), row
        guarded.release()


@pytest.mark.parametrize("name", ["F16", "Q4_0", "Q2_K"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_token_alone(name: str, poison: float, guarded: Guarded) -> None:
    rng = seeded()
    raw, x = weights(rng, name, 9, 512), rng.standard_normal((3, 512)).astype(np.float32)
    clean = multiply(name, raw, x, guarded)
    x[1, rng.integers(512)] = poison
    found = multiply(name, raw, x, guarded)
    assert not np.isfinite(found[1]).any()
    assert same_bits(found[[0, 2]], clean[[0, 2]])


def test_float32_weights_and_other_levels_have_no_such_products(guarded: Guarded) -> None:
    x = np.ones((1, 32), np.float32)
    with pytest.raises(UnsupportedError, match="no prompt products"):
        multiply("F32", x.view(np.uint8), x, guarded)
    with pytest.raises(UnsupportedError, match="level scalar has no prompt products"):
        check(lib.ll_test_prompt_matmul(b"scalar", lib.LL_F16, ffi.NULL, 1, 32, ffi.NULL, 1, ffi.NULL))
