"""Energy counters, as files that a test writes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from localllm.energy import meter


def zone(folder: Path, name: str, energy: int, most: int = 1_000_000, of: str = "package-0") -> Path:
    (folder / name).mkdir()
    (folder / name / "name").write_text(f"{of}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / name / "energy_uj").write_text(f"{energy}\n")
    return folder / name / "energy_uj"


def test_packages_add_up_and_their_parts_do_not(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 100), zone(tmp_path, "intel-rapl:1", 500)
    part, platform = zone(tmp_path, "intel-rapl:0:0", 7, of="core"), zone(tmp_path, "intel-rapl:2", 1, of="psys")
    read = meter("cpu", tmp_path)
    assert read is not None
    before = read()
    first.write_text("2100")
    second.write_text("3500")
    part.write_text("9000")
    platform.write_text("9000")
    assert read() - before == pytest.approx(5000e-6)


def test_a_counter_starts_again(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", 999_000, most=999_999)
    read = meter("cpu", tmp_path)
    assert read is not None
    before = read()
    counter.write_text("500")
    assert read() - before == pytest.approx(1500e-6)


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert meter("cpu", tmp_path) is None
    zone(tmp_path, "intel-rapl:0", 1).write_text("nonsense")
    assert meter("cpu", tmp_path) is None
    assert meter("cpu", tmp_path / "absent") is None


def test_a_gpu_counts_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's own names, without a GPU: nvmlDeviceGetTotalEnergyConsumption tells millijoules."""
    counted = [1500.0]
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu {index}",
        nvmlDeviceGetTotalEnergyConsumption=lambda gpu: counted[0] if gpu == "gpu 0" else -1,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    read = meter("cuda")
    assert read is not None and read() == pytest.approx(1.5)
    counted[0] = 4000.0
    assert read() == pytest.approx(4)


def test_a_gpu_that_does_not_count_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert meter("cuda") is None
