"""Energy counters of the processor (Linux powercap), where the machine has them and lets this user read them."""

from __future__ import annotations

from pathlib import Path


def joules(folder: Path = Path("/sys/class/powercap")) -> float | None:
    """What all packages have used since some time in the past; it starts again now and then. None: not known."""
    total = None
    for package in sorted(folder.glob("intel-rapl:[0-9]*")):
        if package.name.count(":") > 1:
            continue  # a part of a package, which counts it already
        try:
            total = (total or 0.0) + int((package / "energy_uj").read_text()) / 1e6
        except (OSError, ValueError):
            return None
    return total
