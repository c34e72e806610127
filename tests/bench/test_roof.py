"""The roof as the bench uses it."""

from __future__ import annotations

import pytest

from localllm.bench import roof
from localllm.bench.roof import Roof


def test_a_unit_that_is_absent_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "free_memory", lambda: 1 << 28)
    monkeypatch.setenv("LOCALLLM_CPU", "scalar")
    found = roof.measure(1)
    assert found.read_gb_s is not None and found.read_gb_s > 0
    assert found.int8_tops is None and found.bf16_tflops is None


def test_share_is_of_the_nearer_limit() -> None:
    roof = Roof(read_gb_s=20.0, int8_tops=4.0)
    assert roof.share(10e9, 0.1e12) == pytest.approx(0.5)
    assert roof.share(1e9, 1.5e12) == pytest.approx(0.75)
    assert Roof(read_gb_s=20.0).share(10e9, 9e12) == pytest.approx(0.5)
    assert Roof().share(1.0, 1.0) is None
