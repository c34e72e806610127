"""Libraries built for tests with one of three CUDA devices: native/cuda on the CPU, native/cuda by nvcc, or the stub.

They have the CPU's plain kernels only, so that a build takes seconds. Parallel test workers share what one has built.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NATIVE = ROOT / "native"
EMULATOR = Path(__file__).parent / "cuda_emulator"
INCLUDES = [f"-I{NATIVE}", f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'base'}"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
ARCHITECTURES = ["-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=[compute_90,sm_90]"]
NO_GPU = 3  # exit status of tools/gpu_check.py


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def nvcc_flags() -> list[str]:
    """Those of the real build, with warnings as errors."""
    script = (ROOT / "cmake" / "find_cuda.cmake").read_text()
    flags = re.search(r'set\(CMAKE_CUDA_FLAGS "([^"]*)"', script)
    assert flags, "find_cuda.cmake sets no CMAKE_CUDA_FLAGS"
    return [*flags[1].split(), "-std=c++17", "-O3", "-Xcompiler", "-fPIC,-Werror", "-Werror", "all-warnings", *INCLUDES]


def sources(folders: Iterable[str]) -> list[Path]:
    """The C files of folders of native, less those of one instruction-set level."""
    files = [p for folder in folders for p in sorted((NATIVE / folder).glob("*.c"))]
    return [p for p in files if p.stem.rpartition("_")[2] not in ("avx2", "avxvnni", "avx512", "amx")]


def compile_all(folder: Path, commands: list[tuple[list[str], Path]]) -> list[str]:
    """Runs (compiler with flags, source) for each; returns the objects."""
    objects = [str(folder / f"{source.parent.name}_{source.name}.o") for _, source in commands]
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        calls = zip(commands, objects, strict=True)
        list(pool.map(run, ([*compiler, "-c", str(source), "-o", out] for (compiler, source), out in calls)))
    return objects


def compile_core(folder: Path) -> list[str]:
    digest = hashlib.sha256((NATIVE / "include" / "localllm_abi.h").read_bytes()).hexdigest()
    c = ["cc", "-std=c11", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", *WARNINGS, *INCLUDES,
         f'-DLL_ABI_HASH="{digest}"', '-DLL_VERSION="test"']  # fmt: skip
    return compile_all(folder, [(c, p) for p in sources((".", "base", "gguf", "quant", "model", "cpu"))])


def compile_device(folder: Path, device: str) -> list[str]:
    if device == "absent":
        return compile_all(folder, [(["cc", "-std=c11", "-fPIC", *WARNINGS, *INCLUDES], NATIVE / "cuda" / "absent.c")])
    if device == "nvcc":
        compiler = [str(nvcc()), *nvcc_flags(), *ARCHITECTURES]
        return compile_all(folder, [(compiler, p) for p in sorted(NATIVE.glob("cuda/*.cu"))])
    compiler = ["c++", "-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", *WARNINGS, *INCLUDES, f"-I{EMULATOR}",
                "-x", "c++"]  # fmt: skip
    return compile_all(folder, [(compiler, p) for p in (*NATIVE.glob("cuda/*.cu"), *EMULATOR.glob("*.cpp"))])


def build(folder: Path, device: str) -> Path:
    """The library with its device "emulated", "nvcc" or "absent"; built once for all who share the folder."""
    library = folder / device / "liblocalllm.so"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        core = sorted(str(p) for p in (folder / "core").glob("*.o")) or compile_core(folder / "core")
        if not library.exists():
            objects = [*core, *compile_device(folder / device, device)]
            linker = {"nvcc": [str(nvcc()), "-cudart", "static"], "absent": ["cc"], "emulated": ["c++"]}[device]
            run([*linker, "-shared", "-o", str(library), *objects, "-lpthread", "-lm"])
    return library


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of a parallel run."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cuda_builds"
    folder.mkdir(exist_ok=True)
    return folder


def gpu_check(library: Path | None, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """tools/gpu_check.py with a library of choice, or None for that in use. A sanitizer's preloaded runtime is not for
    another library."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "LOCALLLM_CPU")}
    if library is not None:
        variables["LOCALLLM_LIBRARY"] = str(library)
    command = [sys.executable, str(ROOT / "tools" / "gpu_check.py"), *arguments]
    return subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True)
