"""Decoding and products of every tensor type against the gguf package and numpy float64, and every instruction-set
level against the plain C one, bit for bit: odd shapes, one row, one to forty tokens, rows at odd addresses, a page
that must not be touched behind every buffer, numbers that are not finite."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from localllm.bindings import check, ffi, lib
from localllm.errors import InvalidArgument, UnsupportedError

pytestmark = pytest.mark.every_level

FLOATS = ["F32", "F16", "BF16"]
# Where each type's block holds half-precision numbers: random bytes there would be mostly huge, infinite or NaN.
HALVES: dict[str, list[int]] = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}  # fmt: skip
TYPES = FLOATS + list(HALVES)
# rows, blocks of the type (or 23 columns of a float type) and tokens; 16 rows, 8 blocks of 32 and 8 tokens are a tile
SHAPES = [
    (1, 1, 1), (16, 8, 1), (17, 9, 3), (5, 3, 40), (67, 10, 13), (64, 16, 8), (33, 7, 9), (130, 2, 1), (3, 24, 2),
    (37, 32, 1), (18, 80, 1), (35, 11, 6), (19, 13, 1),
]  # fmt: skip


class Guarded:
    """Arrays that end where a page begins that may not be touched; `slack` bytes earlier for odd addresses."""

    def __init__(self) -> None:
        self._held: list[tuple[mmap.mmap, int, int]] = []
        self._mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        self._mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def array(self, value: np.ndarray[Any, Any], slack: int = 0) -> Any:
        raw = np.ascontiguousarray(value).view(np.uint8).ravel()
        size = raw.nbytes + slack
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        memory[pages - size : pages - size + raw.nbytes] = raw.tobytes()
        assert self._mprotect(base + pages, mmap.PAGESIZE, 0) == 0
        self._held.append((memory, base + pages, pages - size))
        return ffi.cast("char *", base + pages - size)

    def release(self) -> None:
        for _, page, _ in self._held:
            assert self._mprotect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        self._held.clear()


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    buffers = Guarded()
    yield buffers
    buffers.release()


def weights(rng: np.random.Generator, name: str, rows: int, cols: int, wild: bool = False) -> np.ndarray[Any, Any]:
    """(rows, bytes of a row): random blocks; wild ones may hold any bytes at all."""
    if name in FLOATS:
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        if name == "BF16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.astype(np.float16 if name == "F16" else np.float32).view(np.uint8)
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    raw = rng.integers(0, 256, (rows, cols // block, size), dtype=np.uint8)
    if not wild:
        for at in HALVES[name]:
            scale = 0.05 * rng.standard_normal((rows, cols // block, 1))
            raw[:, :, at : at + 2] = scale.astype(np.float16).view(np.uint8)
        if name == "MXFP4":
            raw[:, :, 0] = rng.integers(115, 130, (rows, cols // block))
    return raw.reshape(rows, -1)


def decoded(name: str, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(all="ignore"):
        return np.asarray(dequantize(raw.copy(), GGMLQuantizationType[name]), np.float32)


def columns(name: str, count: int) -> int:
    block = GGML_QUANT_SIZES[GGMLQuantizationType[name]][0]
    if name in FLOATS:
        return 23 * count
    return block * count if block == 32 else block * -(-count // 8)


def width(name: str) -> int:
    """Columns of activations that share a scale: those of the type's own block."""
    return GGML_QUANT_SIZES[GGMLQuantizationType[name]][0]


def quantized(name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Finite activations (n, cols) as the kernels see them: int8 under one float32 scale per block; float64."""
    blocks = x.reshape(len(x), -1, width(name))
    top = np.abs(blocks).max(axis=2, keepdims=True)
    q = np.rint(blocks * (np.float32(127) / top)).astype(np.float64)
    return np.asarray(q * (top / np.float32(127)).astype(np.float64)).reshape(x.shape)


def multiply(
    level: str | None, name: str, raw: np.ndarray[Any, Any], x: np.ndarray[Any, Any], guarded: Guarded, slack: int = 0
) -> np.ndarray[Any, Any]:
    """(n, rows): the library's product of activations (n, cols) and the rows of `raw`."""
    shape = (len(x), len(raw))
    out = guarded.array(np.full(shape, 7, np.float32))
    w, inputs = guarded.array(raw, slack), guarded.array(x)
    check(
        lib.ll_test_matmul(
            level.encode() if level else ffi.NULL, GGMLQuantizationType[name], w, len(raw), x.shape[1],
            ffi.cast("float *", inputs), len(x), ffi.cast("float *", out),
        )
    )  # fmt: skip
    return np.frombuffer(ffi.buffer(out, 4 * shape[0] * shape[1]), np.float32).reshape(shape).copy()


def same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Equal bit for bit, where every NaN is as good as any other."""
    nan = np.isnan(a)
    return bool((nan == np.isnan(b)).all() and (a.view(np.uint32)[~nan] == b.view(np.uint32)[~nan]).all())


def seeded() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", TYPES)
def test_decoding_equals_the_gguf_package(name: str, guarded: Guarded) -> None:
    rng, cols = seeded(), 256 * 40
    raw = weights(rng, name, 1, cols, wild=True)
    if name in FLOATS:
        raw = rng.integers(0, 256, raw.shape, dtype=np.uint8)
    dst = guarded.array(np.zeros(cols, np.float32))
    check(lib.ll_test_decode(GGMLQuantizationType[name], guarded.array(raw, slack=1), cols, ffi.cast("float *", dst)))
    assert same_bits(np.frombuffer(ffi.buffer(dst, 4 * cols), np.float32), decoded(name, raw).ravel())


def test_every_half_precision_number(guarded: Guarded) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    dst = guarded.array(np.zeros(len(every), np.float32))
    check(lib.ll_test_decode(lib.LL_F16, guarded.array(every), len(every), ffi.cast("float *", dst)))
    found = np.frombuffer(ffi.buffer(dst, 4 * len(every)), np.float32)
    assert same_bits(found, every.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("name", TYPES)
def test_products_against_float64(name: str, level: str, guarded: Guarded) -> None:
    """The products of the quantized activations, exact but for float32 sums; so no bug hides behind their rounding."""
    rng = seeded()
    for rows, count, n in SHAPES:
        raw = weights(rng, name, rows, columns(name, count))
        x = (rng.standard_normal((n, columns(name, count))) * 10.0 ** rng.integers(-9, 9)).astype(np.float32)
        used = x.astype(np.float64) if name in FLOATS else quantized(name, x)
        w = decoded(name, raw).reshape(rows, -1).astype(np.float64)
        size = np.linalg.norm(used, axis=1)[:, None] * np.linalg.norm(w, axis=1)
        error = np.abs(multiply(level, name, raw, x, guarded, slack=1) - used @ w.T)
        assert (error <= 2e-6 * size).all(), (rows, count, n, (error / size).max())
        guarded.release()


@pytest.mark.parametrize("name", list(HALVES))
def test_rounding_of_activations_is_bounded(name: str, level: str, guarded: Guarded) -> None:
    """Against the activations as given: at most half a step of each block's scale in every column."""
    rng, (rows, n) = seeded(), (20, 5)
    raw, x = weights(rng, name, rows, 1024), rng.standard_normal((n, 1024)).astype(np.float32)
    w = decoded(name, raw).reshape(rows, -1).astype(np.float64)
    half_step = np.abs(x.reshape(n, -1, width(name))).max(axis=2).astype(np.float64) / 254
    bound = np.repeat(half_step, width(name), axis=1) @ np.abs(w).T
    error = np.abs(multiply(level, name, raw, x, guarded) - x.astype(np.float64) @ w.T)
    assert (error <= 1.001 * bound).all()


@pytest.mark.parametrize("wild", [False, True], ids=["usual", "any_bytes"])
@pytest.mark.parametrize("name", TYPES)
def test_levels_give_the_same_bits(name: str, wild: bool, level: str, guarded: Guarded) -> None:
    rng = seeded()
    for turn, (rows, count, n) in enumerate(SHAPES):
        raw = weights(rng, name, rows, columns(name, count), wild)
        x = rng.standard_normal((n, columns(name, count))).astype(np.float32)
        if wild:
            x[rng.integers(n), rng.integers(x.shape[1])] = rng.choice([np.nan, np.inf, -np.inf, 1e-40, 3e38, 0])
            x[rng.integers(n)] *= np.float32(1e-38)
        expected = multiply("scalar", name, raw, x, guarded)
        assert same_bits(multiply(level, name, raw, x, guarded, slack=turn % 3), expected), (rows, count, n)
        guarded.release()


@pytest.mark.parametrize("name", ["F16", "Q4_0", "Q4_K", "Q6_K", "Q8_0", "Q2_K"])
def test_a_tokens_bits_are_its_own(name: str, level: str, guarded: Guarded) -> None:
    """The same token alone and among 1 to 40 others, the same row alone and among others."""
    rng = seeded()
    raw, x = weights(rng, name, 37, 512), rng.standard_normal((40, 512)).astype(np.float32)
    alone = np.concatenate([multiply(level, name, raw, x[t : t + 1], guarded) for t in range(len(x))])
    for n in range(1, len(x) + 1):
        assert same_bits(multiply(level, name, raw, x[:n], guarded), alone[:n]), n
        guarded.release()
    for row in range(len(raw)):
        assert same_bits(multiply(level, name, raw[row : row + 1], x, guarded), alone[:, row : row + 1]), row
        guarded.release()


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q5_1", "Q3_K", "Q2_K", "Q4_K"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_token_alone(name: str, poison: float, level: str, guarded: Guarded) -> None:
    rng = seeded()
    for n in (3, 6, 20):
        raw, x = weights(rng, name, 9, 512), rng.standard_normal((n, 512)).astype(np.float32)
        clean = multiply(level, name, raw, x, guarded)
        x[1, rng.integers(512)] = poison
        found = multiply(level, name, raw, x, guarded)
        assert not np.isfinite(found[1]).any()
        assert same_bits(np.delete(found, 1, 0), np.delete(clean, 1, 0))
        guarded.release()


@pytest.mark.parametrize("name", HALVES)
def test_the_largest_sums(name: str, level: str, guarded: Guarded) -> None:
    """All bits of the codes and the integer scales set, or none, times activations that all quantize to +-127."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    for n in (1, 6, 20):
        raw = np.zeros((18, 512 // block, size), np.uint8)
        raw[1::2] = 255
        raw[2] = seeded().choice(np.array([0, 255], np.uint8), raw[2].shape)
        for at in HALVES[name]:
            raw[:, :, at : at + 2] = np.float16(1.5).reshape(1).view(np.uint8)
        x = np.ones((n, 512), np.float32)
        x[1::3] = -1
        x[2::3, ::2] = -1
        expected = multiply("scalar", name, raw.reshape(18, -1), x, guarded)
        assert same_bits(multiply(level, name, raw.reshape(18, -1), x, guarded), expected), n
        guarded.release()


def test_zeros_and_numbers_too_small_to_scale(level: str, guarded: Guarded) -> None:
    raw = weights(seeded(), "Q4_0", 3, 64)
    for x in (np.zeros((2, 64), np.float32), np.full((2, 64), 1e-44, np.float32)):
        assert (multiply(level, "Q4_0", raw, x, guarded) == 0).all()


def test_refusals(guarded: Guarded) -> None:
    raw, x = weights(seeded(), "Q4_K", 1, 256), np.ones((1, 256), np.float32)
    with pytest.raises(InvalidArgument, match="multiple of 256"):
        multiply(None, "Q4_K", raw, x[:, :32], guarded)
    with pytest.raises(UnsupportedError):
        check(lib.ll_test_decode(4, guarded.array(raw), 32, ffi.NULL))
    with pytest.raises((InvalidArgument, UnsupportedError), match="expected scalar, avx2, avx512 or amx, found 'mmx'"):
        multiply("mmx", "Q4_K", raw, x, guarded)
