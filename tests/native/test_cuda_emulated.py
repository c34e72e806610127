"""The CUDA device's kernels, run on the CPU by tests/native/cuda_emulator: against the gguf package, against the plain
C kernels bit for bit, and as a whole device by tools/gpu_check.py. What only a GPU can show stays with that program.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.native import cuda_builds

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
         "IQ4_NL", "IQ4_XS", "MXFP4")  # fmt: skip
QUANTIZED = TYPES[3:]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for compiler in ("cc", "c++"):
        if shutil.which(compiler) is None:
            pytest.skip(f"there is no {compiler} here to build the emulated device with")
    return cuda_builds.build(cuda_builds.shared_folder(tmp_path_factory), "emulated")


@pytest.fixture(scope="module")
def native(library: Path) -> Any:
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def kind(dtype: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[dtype]


def random_rows(rng: np.random.Generator, dtype: str, rows: int, cols: int) -> np.ndarray:
    """(rows, bytes) of any content whatever, except that half-precision fields hold small numbers of mixed size."""
    block, size = gguf.GGML_QUANT_SIZES[kind(dtype)]
    raw = rng.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2),
              "Q5_K": (0, 2), "MXFP4": (), "F32": (), "F16": (), "BF16": ()}  # fmt: skip
    for at in halves.get(dtype, (0,)):
        values = rng.normal(0, 1, len(raw)) * 10.0 ** rng.integers(-7, 1, len(raw))
        raw[:, at : at + 2] = values.astype(np.float16).view(np.uint8).reshape(-1, 2)
    if dtype == "MXFP4":
        raw[:, 0] = rng.integers(100, 140, len(raw))
    if block == 1:
        floats = rng.normal(0, 1, (rows, cols)).astype(np.float32)
        return floats.view(np.uint8) if dtype == "F32" else gguf.quants.quantize(floats, kind(dtype)).view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("dtype", TYPES)
def test_decoding_is_the_gguf_packages_bit_for_bit(native: Any, dtype: str) -> None:
    rng = np.random.default_rng(TYPES.index(dtype))
    cols = 256 * 64
    raw = random_rows(rng, dtype, 1, cols)
    if dtype == "MXFP4":
        raw.reshape(-1, 17)[:256, 0] = np.arange(256)  # every exponent
    want = gguf.quants.dequantize(raw.view(np.float32) if dtype == "F32" else raw, kind(dtype)).reshape(-1)
    got = np.empty(cols, np.float32)
    native.emulated_decode(int(kind(dtype)), pointer(raw), ctypes.c_int64(cols), pointer(got))
    assert got.tobytes() == want.astype(np.float32).tobytes()


def product(
    native: Any, dtype: str, raw: np.ndarray, x: np.ndarray, bias: np.ndarray | None, twice: bool
) -> np.ndarray:
    out = np.empty((len(x), len(raw)), np.float32)
    status = native.emulated_product(
        int(kind(dtype)), pointer(raw), ctypes.c_int64(raw.shape[1]), len(raw), x.shape[1], pointer(x), len(x),
        None if bias is None else pointer(bias), int(twice), pointer(out))  # fmt: skip
    assert status == 0
    return out


def plain_c(native: Any, dtype: str, raw: np.ndarray, x: np.ndarray) -> np.ndarray:
    out = np.empty((len(x), len(raw)), np.float32)
    status = native.ll_test_matmul(
        b"scalar", int(kind(dtype)), pointer(raw), len(raw), x.shape[1], pointer(x), len(x), pointer(out))  # fmt: skip
    assert status == 0
    return out


# (rows, columns, tokens): tails of every tile, one and many, more than one round of 32 blocks
SHAPES = ((1, 256, 1), (5, 256, 15), (4, 256, 16), (9, 1280, 17), (3, 2304, 33))
SMALL_SHAPES = ((7, 32, 3), (2, 1056, 2))
FLOAT_SHAPES = ((1, 1, 1), (9, 20, 7), (8, 16, 8), (17, 333, 9))


@pytest.mark.parametrize("dtype", TYPES)
def test_products_are_those_of_plain_c_bit_for_bit(native: Any, dtype: str) -> None:
    rng = np.random.default_rng(TYPES.index(dtype))
    block = gguf.GGML_QUANT_SIZES[kind(dtype)][0]
    for rows, cols, n in {1: FLOAT_SHAPES, 32: SHAPES + SMALL_SHAPES, 256: SHAPES}[block]:
        raw = random_rows(rng, dtype, rows, cols)
        x = (rng.normal(0, 1, (n, cols)) * 10.0 ** rng.integers(-3, 3, (n, 1))).astype(np.float32)
        bias = rng.normal(0, 1, rows).astype(np.float32)
        want = plain_c(native, dtype, raw, x)
        assert product(native, dtype, raw, x, None, False).tobytes() == want.tobytes(), (rows, cols, n)
        assert product(native, dtype, raw, x, bias, False).tobytes() == (want + bias).tobytes(), (rows, cols, n)
        once = want + bias
        assert product(native, dtype, raw, x, bias, True).tobytes() == (once + once).tobytes(), (rows, cols, n)


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_K", "Q2_K"])
def test_strange_activations_are_treated_alike(native: Any, dtype: str) -> None:
    """Zeros, magnitudes whose inverse overflows, infinities and NaNs: finite results agree in every bit."""
    rng = np.random.default_rng(3)
    raw = random_rows(rng, dtype, 4, 256)
    x = rng.normal(0, 1, (6, 256)).astype(np.float32)
    x[0] = 0
    x[1] *= np.float32(1e-39)
    x[2, 5], x[3, 40] = np.inf, np.nan
    x[4, :32], x[5] = 0, x[5] * np.float32(1e36)
    with np.errstate(all="ignore"):
        want, got = plain_c(native, dtype, raw, x), product(native, dtype, raw, x, None, False)
    assert np.array_equal(np.isnan(got), np.isnan(want)) and np.isnan(want[2:4]).all()
    assert np.nan_to_num(got).tobytes() == np.nan_to_num(want).tobytes()


@pytest.mark.parametrize("seed", ["0", "5"])
def test_the_whole_device_passes_the_gpu_check(library: Path, seed: str) -> None:
    """Once with threads in their order, once with threads and blocks shuffled, which a missing barrier would show."""
    done = cuda_builds.gpu_check(library, "--quick", CUDA_EMULATOR_SEED=seed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "emulated by the CPU" in done.stdout and "0 failed" in done.stdout


def test_without_a_device_the_check_says_so(library: Path) -> None:
    done = cuda_builds.gpu_check(library, CUDA_EMULATOR_ABSENT="1")
    assert done.returncode == cuda_builds.NO_GPU, done.stdout + done.stderr
    assert "no NVIDIA driver" in done.stdout and "not verified" in done.stdout
