"""The CUDA device as it is built: by nvcc for both architectures without a warning, loadable where no driver is, and
replaced by a stub that says so. Where there is a GPU, the device built here must also pass tools/gpu_check.py.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.native import cuda_builds


@pytest.fixture(scope="module")
def by_nvcc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if cuda_builds.nvcc() is None or shutil.which("cc") is None:
        pytest.skip("needs a GPU's toolkit: there is no nvcc here")
    return cuda_builds.build(cuda_builds.shared_folder(tmp_path_factory), "nvcc")


def test_it_compiles_and_loads_and_passes_where_there_is_a_gpu(by_nvcc: Path) -> None:
    done = cuda_builds.gpu_check(by_nvcc, "--quick")
    assert done.returncode in (0, cuda_builds.NO_GPU), done.stdout + done.stderr
    if done.returncode == cuda_builds.NO_GPU:
        assert "no NVIDIA driver" in done.stdout or "no CUDA-capable device" in done.stdout
        assert "not verified" in done.stdout


@pytest.mark.gpu
def test_the_packages_own_device_passes_the_gpu_check() -> None:
    done = cuda_builds.gpu_check(None)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_float_operation_is_rounded_once_as_written(by_nvcc: Path, tmp_path: Path) -> None:
    """In PTX a plain mul.f32 may later be fused with an add; with .rn it may not. No approximation, no flushing."""
    kinds: set[str] = set()
    for source in sorted((cuda_builds.NATIVE / "cuda").glob("*.cu")):
        ptx = tmp_path / f"{source.stem}.ptx"
        command = [str(cuda_builds.nvcc()), *cuda_builds.nvcc_flags(), "-arch=compute_90", "-ptx", str(source)]
        cuda_builds.run([*command, "-o", str(ptx)])
        kinds |= set(re.findall(r"\b(?:add|sub|mul|fma|div|rcp|sqrt|rsqrt|ex2|lg2)\.\S*f32", ptx.read_text()))
    assert {"add.rn.f32", "mul.rn.f32", "fma.rn.f32", "div.rn.f32", "sqrt.rn.f32"} <= kinds
    assert all(kind.endswith(".rn.f32") for kind in kinds), kinds


def test_it_needs_no_library_of_cuda_or_cxx(by_nvcc: Path) -> None:
    """The CUDA runtime is inside, and nothing reaches for a C++ runtime: one library serves every machine."""
    if shutil.which("nm") is None:
        pytest.skip("needs a GPU's toolkit: there is no nm here")
    wanted = cuda_builds.run(["nm", "-D", "--undefined-only", str(by_nvcc)])
    assert not [line for line in wanted.splitlines() if "cuda" in line or "_ZN" in line or "__cxa_guard" in line]
    exported = cuda_builds.run(["nm", "-D", "--defined-only", str(by_nvcc)]).split()[2::3]
    assert "ll_cuda_devices" in exported


def test_the_stub_says_that_it_is_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no cc here")
    library = cuda_builds.build(cuda_builds.shared_folder(tmp_path_factory), "absent")
    done = cuda_builds.gpu_check(library)
    assert done.returncode == cuda_builds.NO_GPU, done.stdout + done.stderr
    assert "built without CUDA" in done.stdout
