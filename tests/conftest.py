"""What every test may ask for: the shared test material, an instruction-set level, and the skips with their reasons."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process they start would too.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
LEVELS = ("scalar", "avx2", "avx512", "amx")


def shared_folder() -> Path | None:
    """The folder of shared test material: LOCALLLM_TEST_DATA, or `shared` beside the repository; None without it."""
    path = Path(os.environ.get("LOCALLLM_TEST_DATA") or ROOT.parent / "shared")
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    path = shared_folder()
    if path is None:
        pytest.skip("no shared test material: set LOCALLLM_TEST_DATA")
    return path


@pytest.fixture(params=[*LEVELS[:2], "avx2 without vnni", *LEVELS[2:]])
def level(request: pytest.FixtureRequest) -> str:
    """Each table of kernels by the name of its instruction-set level; those that this CPU (or LOCALLLM_CPU) lacks are
    skipped. Level avx2 has two, one of them for processors with AVX-VNNI."""
    from localllm import bindings

    best = bindings.text(bindings.lib.ll_cpu_level())
    if LEVELS.index(request.param.partition(" ")[0]) > LEVELS.index(best):
        pytest.skip(f"this CPU runs levels up to {best}, not {request.param}")
    return str(request.param)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        from localllm import bindings

        if bindings.lib.ll_cuda_devices() == 0:
            pytest.skip("needs a GPU: " + bindings.text(bindings.lib.ll_cuda_status()))
    if item.get_closest_marker("network") and os.environ.get("LOCALLLM_TEST_NETWORK") != "1":
        pytest.skip("needs the network: set LOCALLLM_TEST_NETWORK=1")
