"""The tool that measures the server runs, and gives a figure for every round."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT


def test_it_gives_figures() -> None:
    command = [sys.executable, "-m", "tools.server_cost", "-c", "3", "-n", "5", "--rounds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rounds = [
        re.fullmatch(r"(\d+) tokens: ([\d.]+) us each .* ([\d.]+) us scheduling", x) for x in done.stdout.split("\n")
    ]
    figures = [found.groups() for found in rounds if found]
    assert len(figures) == 2 and all(tokens == "15" and float(spent) > float(s) > 0 for tokens, spent, s in figures)
