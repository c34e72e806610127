"""Mutants of whole tiny models: what opens must run. Under the sanitized library (CI does so) every access counts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from localllm import bindings
from tests.conftest import ROOT
from tests.model.test_logits import LLAMA3, YARN
from tests.tiny_models import write_tiny


def library() -> Path:
    return Path(os.environ.get("LOCALLLM_LIBRARY") or Path(bindings.__file__).parent / "_native" / "liblocalllm.so")


def build_fuzzer(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    sanitize = ["-fsanitize=address,undefined"] if b"__asan_init" in library().read_bytes() else []
    source = ROOT / "tests" / "native" / "fuzz_model.c"
    command = [compiler, "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *sanitize, f"-I{ROOT}/native/include",
               source, library(), f"-Wl,-rpath,{library().parent}", "-o", folder / "fuzz"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "fuzz"


def write_seeds(folder: Path) -> list[Path]:
    variety = {
        "llama": {"dtype": "Q8_0", "rope_scaling": LLAMA3},
        "qwen2": {"dtype": "F32", "rope_scaling": YARN},
        "qwen3": {"dtype": "BF16", "sliding_window": 5},
    }
    paths = [folder / f"{arch}.gguf" for arch in variety]
    for path, (arch, options) in zip(paths, variety.items(), strict=True):
        write_tiny(path, arch, layers=1, embd=32, heads=2, kv_heads=1, ff=32, vocab=264, **options)
    return paths


def test_mutants_run_or_are_refused(tmp_path: Path) -> None:
    fuzzer = build_fuzzer(tmp_path)
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    command = [fuzzer, "--mutate", str(seed), "2000", *write_seeds(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    print(f"seed {seed}: {done.stdout}")
    assert done.returncode == 0, done.stderr
    counts = re.search(r"ran (\d+), refused (\d+)", done.stdout)
    assert counts and int(counts[1]) > 100 and int(counts[2]) > 100
