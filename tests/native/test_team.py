"""The team of threads by itself: whatever a worker is at when the team is closed, it ends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_a_team_of_slow_workers_closes(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    program = tmp_path / "probe"
    sources = [ROOT / "tests" / "native" / "probe_team.c", *(ROOT / "native" / "base").glob("*.c")]
    folders = [f"-I{ROOT / name}" for name in ("native", "native/include", "native/base", "native/cpu")]
    command = [compiler, "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-pthread", *folders, *sources, "-lm", "-o", program]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "closed\n")
