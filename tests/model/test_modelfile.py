"""What a good file holds reaches Python unchanged, compared with the `gguf` package's reader, and quickly."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from localllm.errors import ClosedError
from localllm.modelfile import ModelFile
from tests.conftest import ROOT, shared_folder
from tests.model import gguf_writer as w
from tests.model.gguf_writer import BLOCKS, Spec, TensorSpec, kv
from tests.model.malformed_cases import GOOD


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.gguf"
    path.write_bytes(GOOD.build())
    return path


def test_every_kind_of_value(good: Path) -> None:
    with ModelFile(good) as file:
        found = dict(file.metadata)
    arrays = {key: found.pop(key) for key in ("a.floats", "a.flags", "a.none")}
    expected = {
        "general.architecture": "llama",
        "a.u8": 200,
        "a.i8": -3,
        "a.u16": 50000,
        "a.i16": -300,
        "a.u32": 4_000_000_000,
        "a.i32": -70000,
        "a.f32": 0.5,
        "a.bool": True,
        "a.u64": 1 << 63,
        "a.i64": -(1 << 62),
        "a.f64": 1e-300,
        "a.strings": ["", "token", "wörd"],
    }
    assert found == expected and [type(v) for v in found.values()] == [type(v) for v in expected.values()]
    for key, items, dtype in (
        ("a.floats", [1, -2], "<f4"),
        ("a.flags", [False, True, True], "?"),
        ("a.none", [], "<i4"),
    ):
        array = arrays[key]
        assert isinstance(array, np.ndarray) and array.tolist() == items and array.dtype == dtype
        assert not array.flags.writeable


def test_directory_of_every_type(tmp_path: Path) -> None:
    tensors = (*(TensorSpec(f"t{t}", (256, 3), t) for t in BLOCKS), TensorSpec("x", (256, 3), 16))
    path = tmp_path / "types.gguf"
    path.write_bytes(Spec(tensors=tensors).build())
    theirs = {t.name: t for t in gguf.GGUFReader(path).tensors if t.name != "x"}
    with ModelFile(path) as file:
        ours = {t.name: t for t in file.tensors}
    unknown = ours.pop("x")
    assert unknown.type == "IQ2_XXS" and unknown.bytes == 0
    assert {n: (t.tensor_type.name, t.n_bytes) for n, t in theirs.items()} == {
        n: (t.type, t.bytes) for n, t in ours.items()
    }
    assert all(t.shape == (3, 256) for t in ours.values())


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    raw = [b"\xff", b"\xe2\x96", b"\x81a", b"", b"ok", b"\xed\xa0\x80"]
    path = tmp_path / "bytes.gguf"
    path.write_bytes(Spec(kvs=(kv(b"k\xfe", w.ARRAY, (w.STRING, raw)), kv("s", w.STRING, raw[0]))).build())
    with ModelFile(path) as file:
        (key, text) = file.metadata
        items = file.metadata[key]
        assert isinstance(items, list) and [x.encode("utf-8", "surrogateescape") for x in items] == raw
        assert key.encode("utf-8", "surrogateescape") == b"k\xfe" and file.metadata[text] == "\udcff"


def test_mapping_and_closing(good: Path) -> None:
    file = ModelFile(good)
    metadata = file.metadata
    assert file.path == str(good) and file.version == 3 and file.bytes == good.stat().st_size
    assert metadata.get("absent") is None and "a.u8" in metadata and metadata["a.u8"] == 200
    with pytest.raises(KeyError):
        metadata["absent"]
    file.close()
    file.close()
    assert metadata["a.u8"] == 200  # already read
    for use in (lambda: metadata["a.i8"], lambda: file.tensors, lambda: file.handle):
        with pytest.raises(ClosedError, match="closed"):
            use()


def test_replaced_file_keeps_its_old_bytes(good: Path, tmp_path: Path) -> None:
    with ModelFile(good) as file:
        (tmp_path / "new").write_bytes(b"something else")
        (tmp_path / "new").rename(good)
        assert file.metadata["general.architecture"] == "llama"


def test_many_threads_read_one_file(good: Path) -> None:
    seen: list[Any] = []
    with ModelFile(good) as file:
        threads = [threading.Thread(target=lambda: seen.append(dict(file.metadata)["a.strings"])) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 16 and all(items == ["", "token", "wörd"] for items in seen)


def test_nothing_leaks(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(good.read_bytes()[:-1])
    program = (
        "import os, sys\n"
        "from localllm.errors import FormatError\n"
        "from localllm.modelfile import ModelFile\n"
        "def used(): return len(os.listdir('/proc/self/fd')), len(open('/proc/self/maps').readlines())\n"
        "def cycle():\n"
        "    for path in sys.argv[1:]:\n"
        "        try: ModelFile(path).tensors\n"
        "        except FormatError: pass\n"
        "cycle(); before = used()\n"
        "for _ in range(300): cycle()\n"
        "after = used(); assert after[0] <= before[0] and after[1] <= before[1] + 20, (before, after)\n"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("counts maps through /proc")
    done = subprocess.run([sys.executable, "-c", program, good, bad], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- real vocabularies ----

VOCABULARIES = sorted((folder / "vocab").glob("*.gguf")) if (folder := shared_folder()) else []


needs_vocabularies = pytest.mark.skipif(not VOCABULARIES, reason="no shared test material: set LOCALLLM_TEST_DATA")


@needs_vocabularies
def test_real_vocabularies_quickly() -> None:
    """All metadata of a 128k vocabulary: 0.1 s of processor time on a quiet machine, where the gguf package's reader
    takes 7 s. The ratio holds on a busy one too, and 0.3 s against those 7 is 1 : 24."""

    def seconds(read: Callable[[], object]) -> float:
        start = time.process_time()
        read()
        return time.process_time() - start

    def ours(path: Path) -> None:
        with ModelFile(path) as file:
            assert len(dict(file.metadata)) > 10

    largest = max(VOCABULARIES, key=lambda path: path.stat().st_size)
    assert min(seconds(lambda: ours(largest)) for _ in range(5)) * 24 < seconds(lambda: gguf.GGUFReader(largest))


@needs_vocabularies
def test_real_vocabularies_exactly() -> None:
    """The same values as the gguf package's, which takes seconds for a large file: so the small ones, and of long
    arrays 500 items spread over them."""
    for path in (path for path in VOCABULARIES if path.stat().st_size < 1 << 20):
        reader = gguf.GGUFReader(path)
        with ModelFile(path) as file:
            found = dict(file.metadata)
        assert list(found) == [key for key in reader.fields if not key.startswith("GGUF.")]
        for key, value in found.items():
            field = reader.fields[key]
            if isinstance(value, list | np.ndarray):
                assert len(value) == len(field.data), (path.name, key)
                step = max(1, len(value) // 500)
                assert all(value[i] == field.contents(i) for i in range(0, len(value), step)), (path.name, key)
            else:
                assert value == field.contents(), (path.name, key)
