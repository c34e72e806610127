"""Which instruction-set level a machine has and how many cores a process may use, on machines that a small C program
plays, and the rule of LOCALLLM_CPU on this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LEVELS, ROOT

# CPUID bits by leaf and register, as Intel's manual numbers them (volume 2A, CPUID).
FEATURES = {
    "fma": (0, 12), "f16c": (0, 29), "avx2": (1, 5), "avx512f": (1, 16), "avx512dq": (1, 17), "avx512bw": (1, 30),
    "avx512vl": (1, 31), "vnni": (2, 11), "amx_bf16": (3, 22), "amx_tile": (3, 24), "amx_int8": (3, 25),
    "avx512_bf16": (4, 5), "avx512_vbmi": (2, 1),
}  # fmt: skip
YMM, ZMM, TILES = 0x6, 0xE0, 0x60000
AVX2 = ["fma", "f16c", "avx2"]
AVX512 = [*AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl", "vnni"]
AMX = [*AVX512, "avx512_vbmi", "avx512_bf16", "amx_bf16", "amx_tile", "amx_int8"]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("probe") / "probe"
    sources = [ROOT / "native" / name for name in ("cpu/cpuid.c", "cpu/cpuinfo.c", "base/status.c")]
    folders = [f"-I{ROOT / name}" for name in ("native", "native/include", "native/base")]
    command = [compiler, "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *folders, *sources]
    command += [ROOT / "tests" / "native" / "probe_cpuinfo.c", "-o", out]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if subprocess.run([*command, *sanitize], capture_output=True).returncode:
        subprocess.run(command, check=True)
    return out


def ask(probe: Path, request: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCALLLM_CPU", "LD_PRELOAD")}
    done = subprocess.run([probe], input=request + "\n", capture_output=True, text=True, env={**clean, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def level_of(probe: Path, features: list[str], saved: int, granted: bool = True) -> str:
    words = [0] * 5
    for name in features:
        word, bit = FEATURES[name]
        words[word] |= 1 << bit
    return ask(probe, "cpu " + " ".join(f"{w:x}" for w in [*words, saved]) + f" {int(granted)}")


def test_a_level_needs_all_its_parts_and_all_below(probe: Path) -> None:
    everything = YMM | ZMM | TILES
    assert level_of(probe, [], everything) == "scalar"
    assert level_of(probe, AVX2, everything) == "avx2"
    assert level_of(probe, AVX512, everything) == "avx512"
    assert level_of(probe, AMX, everything) == "amx"
    for features, missing_gives in ((AVX2, "scalar"), (AVX512[3:], "avx2"), (AMX[8:], "avx512")):
        for missing in features:
            assert level_of(probe, [f for f in AMX if f != missing], everything) == missing_gives, missing


def test_registers_that_the_system_does_not_save_are_not_used(probe: Path) -> None:
    assert level_of(probe, AMX, 0) == "scalar"
    assert level_of(probe, AMX, YMM) == "avx2"
    assert level_of(probe, AMX, YMM | TILES) == "avx2"
    assert level_of(probe, AMX, YMM | ZMM & 0x60) == "avx2"
    assert level_of(probe, AMX, YMM | ZMM) == "avx512"
    assert level_of(probe, AMX, YMM | ZMM | 0x20000) == "avx512"
    assert level_of(probe, AMX, YMM | ZMM | TILES, granted=False) == "avx512"


def test_localllm_cpu_caps_the_level(probe: Path) -> None:
    best = ask(probe, "this").split()[0]
    for cap in LEVELS:
        expected = min(cap, best, key=LEVELS.index)
        assert ask(probe, "this", LOCALLLM_CPU=cap).split()[0] == expected
    assert ask(probe, "this", LOCALLLM_CPU="").split()[0] == best
    assert ask(probe, "this", LOCALLLM_CPU="AVX2").split()[0] == "invalid"


def test_an_unknown_level_is_an_error_that_names_the_variable() -> None:
    program = (
        "from localllm.bindings import ffi, lib, text\n"
        "one = [ffi.new('float[1]') for _ in range(3)]\n"
        "code = lib.ll_test_matmul(ffi.NULL, lib.LL_F32, one[0], 1, 1, one[1], 1, one[2])\n"
        "print(code < 0, text(lib.ll_error()))\n"
    )
    environment = {**os.environ, "LOCALLLM_CPU": "fast"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.strip() == "True LOCALLLM_CPU: expected scalar, avx2, avx512 or amx, found 'fast'", done.stderr


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({"cpu.max": "max 100000"}, "0::/", 0),
        ({"cpu.max": "150000 100000"}, "0::/", 2),
        ({"a/b/cpu.max": "50000 100000"}, "0::/a/b", 1),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 3),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000"}, "0::/a/b", 3),
        ({"other/cpu.max": "100000 100000"}, "0::/a", 0),
        ({"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", 3),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, "4:cpuacct,cpu:/gone", 2),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu:/a", 0),
        ({"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpuset:/a", 0),
        ({"cpu.max": "nonsense"}, "0::/", 0),
        ({"cpu.max": "100000 0"}, "0::/", 0),
        ({}, "no colons at all", 0),
    ],
)
def test_quota_of_control_groups(
    probe: Path, tmp_path: Path, files: dict[str, str], membership: str, cores: int
) -> None:
    for name, content in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    groups = tmp_path / "groups"
    groups.write_text("1:name=systemd:/x\n" + membership + "\n")
    assert ask(probe, f"quota {tmp_path / 'mount'} {groups}") == str(cores)


def test_cores_respect_affinity(probe: Path) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no processor affinity on this system")
    allowed = os.sched_getaffinity(0)
    assert 1 <= int(ask(probe, "this").split()[1]) <= len(allowed)
    one = {min(allowed)}
    done = subprocess.run(
        [probe], input="this\n", capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, one)
    )
    assert done.stdout.split()[1] == "1"
