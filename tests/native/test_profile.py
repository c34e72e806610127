"""The profile in front of a device: the same tokens, and on a GPU, which the CPU plays, the same account of work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from localllm.bindings import check, ffi, lib
from localllm.errors import InvalidArgument
from localllm.modelfile import ModelFile
from tests.native import cuda_builds
from tests.tiny_models import write_tiny

PROGRAM = """
import json, sys
from localllm.bench.measure import Case, opened
from localllm.config import DeviceOptions
found = []
for case in (Case("prefill", 40), Case("decode", 4, batch=2, depth=20)):
    with opened(sys.argv[1], [case], DeviceOptions(device=sys.argv[2], threads=1)) as bench:
        found.append([op[:2] + op[3:] for op in bench.run(case, 1).repeats[0].work])
print(json.dumps(found))
"""


def account(path: Path, device: str, library: Path | None = None) -> list[list[object]]:
    """(operation, calls, multiply-adds, bytes) of all operations of a prompt and of some steps."""
    inherited = {k: v for k, v in os.environ.items() if library is None or k != "LD_PRELOAD"}
    environment = {**inherited, "LOCALLLM_LIBRARY": str(library)} if library else inherited
    command = [sys.executable, "-c", PROGRAM, str(path), device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[list[object]] = json.loads(done.stdout)
    return found


def test_both_devices_give_one_account(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no c++ here to build the emulated device with")
    library = cuda_builds.build(cuda_builds.shared_folder(tmp_path_factory), "emulated")
    write_tiny(tmp_path / "tiny.gguf", sliding_window=8)
    assert account(tmp_path / "tiny.gguf", "cuda", library) == account(tmp_path / "tiny.gguf", "cpu")


def test_an_account_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf")
    sizes = {"threads": 1, "kv_type": lib.LL_F16, "block_size": 16, "n_blocks": 2, "max_tokens": 4, "max_rows": 1}
    with ModelFile(str(tmp_path / "tiny.gguf")) as file:
        model, runner = ffi.new("ll_model **"), ffi.new("ll_runner **")
        check(lib.ll_model_open(model, file.handle))
        work = ffi.new("ll_op_work[]", lib.LL_OPS)
        for profile, expected in ((0, lib.LL_EINVAL), (1, lib.LL_OK)):
            config = ffi.new("ll_runner_config *", {**sizes, "max_samples": 1, "profile": profile})
            check(lib.ll_runner_open(runner, model[0], config))
            assert lib.ll_runner_work(runner[0], work) == expected
            lib.ll_runner_close(runner[0])
        config = ffi.new("ll_runner_config *", {**sizes, "max_samples": 1, "profile": 2})
        with pytest.raises(InvalidArgument, match="profile: expected 0 to 1, found 2"):
            check(lib.ll_runner_open(runner, model[0], config))
        lib.ll_model_close(model[0])
