"""Reading a model ahead: what is in memory already is left alone, what is not comes with a bar on a terminal."""

from __future__ import annotations

import io
import mmap
import os
import sys
from pathlib import Path

import pytest

from localllm.cli import loading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small chunks, any model worth reading and any time a bar; the offsets that are read."""
    offsets: list[int] = []
    fetch = loading._fetch

    def recorded(descriptor: int, whole: mmap.mmap, at: int) -> None:
        offsets.append(at)
        fetch(descriptor, whole, at)

    monkeypatch.setattr(loading, "CHUNK", 4096)
    monkeypatch.setattr(loading, "WORTH_READING", 1)
    monkeypatch.setattr(loading, "WORTH_A_BAR", 0.0)
    monkeypatch.setattr(loading, "_fetch", recorded)
    return offsets


def test_an_older_system_reads_into_a_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "model.gguf", []
    path.write_bytes(bytes(8192))
    monkeypatch.setattr(loading, "CHUNK", 4096)
    monkeypatch.setattr(loading, "POPULATE_READ", 12345)  # no such advice
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, at: read.append((len(buffers[0]), at)))
    with path.open("rb") as file, loading._map(file.fileno()) as whole:
        loading._fetch(file.fileno(), whole, 4096)
    assert read == [(4096, 4096)]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_model_is_read_with_a_bar_on_a_terminal(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(10_000))
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    loading.read_ahead(path)
    assert read == [0, 4096, 8192]
    shown = sys.stderr.getvalue()
    assert ("loading model.gguf" in shown and "100%" in shown) if terminal else shown == ""


def test_what_takes_no_time_needs_no_bar(tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(10_000))
    monkeypatch.setattr(loading, "WORTH_A_BAR", 60.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    loading.read_ahead(path)
    assert read == [0, 4096, 8192] and sys.stderr.getvalue() == ""


def test_a_small_model_is_left_to_the_kernel(tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(40_000))
    monkeypatch.setattr(loading, "WORTH_READING", 1 << 20)
    loading.read_ahead(path)
    assert read == []


def test_the_parts_of_a_split_model(tmp_path: Path) -> None:
    for i in (1, 2, 3):
        (tmp_path / f"m-0000{i}-of-00003.gguf").touch()
    (tmp_path / "other.gguf").touch()
    parts = loading._parts(tmp_path / "m-00001-of-00003.gguf")
    assert [part.name for part in parts] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert loading._parts(tmp_path / "other.gguf") == [tmp_path / "other.gguf"]
