"""The server most tests share: one tiny model, one start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.live import Live, serving
from tests.tiny_models import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("server") / "tiny.gguf"
    write_tiny(file, context=512)
    return file


@pytest.fixture(scope="session")
def server(tiny: Path) -> Iterator[Live]:
    with serving(tiny) as live:
        yield live
