"""Energy as the machine counts it: Intel's and AMD's RAPL counters for a processor, NVML for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def meter(device: str, powercap: Path = POWERCAP) -> Callable[[], float] | None:
    """A function that returns joules: the difference of two calls is the energy between them. None where nothing can
    be read, which for RAPL is usual unless one is root."""
    if device == "cuda":
        return _gpu_meter()
    zones = [Zone(folder) for folder in sorted(powercap.glob("intel-rapl:*")) if _is_package(folder)]
    readable = [zone for zone in zones if zone.readable]
    return (lambda: sum(zone.joules() for zone in readable)) if readable else None


def _is_package(folder: Path) -> bool:
    """Not a part of one, nor psys, which has the packages in it."""
    try:
        name = (folder / "name").read_text()
    except OSError:
        return False
    return folder.name.count(":") == 1 and name.startswith("package")


class Zone:
    """One package. Its counter starts again at zero after some minutes; it must be read more often than that."""

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        try:
            self._range = int((folder / "max_energy_range_uj").read_text())
            self._last = int(self._counter.read_text())
            self.readable = True
        except (OSError, ValueError):
            self.readable = False
        self._total = 0

    def joules(self) -> float:
        value = int(self._counter.read_text())
        self._total += (value - self._last) % (self._range + 1)
        self._last = value
        return self._total * 1e-6


def _gpu_meter() -> Callable[[], float] | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except Exception:  # not installed, no driver, or a GPU that does not count: NVML's errors are of its own tree
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) * 1e-3
