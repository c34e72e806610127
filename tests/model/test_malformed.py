"""No bytes crash the parser: each malformed file gives the error that it should, in one sentence, within its memory."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.errors import FileError, FormatError, InvalidArgument, LocalLLMError
from localllm.modelfile import ModelFile
from tests.conftest import ROOT
from tests.model import gguf_writer as w
from tests.model.gguf_writer import Spec, TensorSpec, kv, pack
from tests.model.malformed_cases import BARE, BIG, CASES, GOOD, Case


def open_bytes(path: Path, data: bytes) -> ModelFile | LocalLLMError:
    """Writes the file and opens it: the file, or the error. (A new file: some filesystems flush a rewritten one.)"""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        return ModelFile(path)
    except LocalLLMError as error:
        return error


def refused(path: Path, data: bytes) -> str:
    found = open_bytes(path, data)
    assert isinstance(found, FormatError), found
    return str(found)


def test_the_catalogue_is_large_and_the_good_file_good(tmp_path: Path) -> None:
    assert len(CASES) >= 200 and len({case.name for case in CASES}) == len(CASES)
    assert len({case.data for case in CASES}) == len(CASES)
    for spec in (GOOD, BARE):
        file = open_bytes(tmp_path / "good.gguf", spec.build())
        assert isinstance(file, ModelFile), file
        file.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "_") for case in CASES])
def test_malformed_file_is_named(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(case.data)
    with pytest.raises(case.error) as caught:
        ModelFile(path)
    sentence = str(caught.value)
    assert type(caught.value) is case.error and case.says in sentence, sentence
    assert str(path) in sentence and sentence.isprintable() and len(sentence) < 1000, sentence


def test_cut_anywhere(tmp_path: Path) -> None:
    """The header of a file with every kind of value, and its data, end at every byte in turn."""
    data, path = GOOD.build(), tmp_path / "cut.gguf"
    for size in range(len(data)):
        assert "cut.gguf: " in refused(path, data[:size])


def test_every_integer_at_its_edges(tmp_path: Path) -> None:
    """Each count, length, type, dimension and offset takes 24 values. What then still opens is what the gguf package
    reads too, unless the tensor type is one that localllm does not know or a name is not UTF-8."""
    data, path = GOOD.build(), tmp_path / "edge.gguf"
    fields = w.integers(data)
    opened, tried = 0, 0
    for at, size, what in fields[:-1]:
        true = int.from_bytes(data[at : at + size], "little")
        near = {true - 9, true - 1, true + 1, true + 7, true + 32, len(data) - at, len(data) - at - size, len(data)}
        for number in sorted(near | {0, 1, 2, 3, 5, 13, 31, 255, 65536, *BIG}):
            if number < 0 or number >= 1 << (8 * size) or number == true:
                continue
            tried += 1
            mutant = data[:at] + number.to_bytes(size, "little") + data[at + size :]
            found = open_bytes(path, mutant)
            if isinstance(found, ModelFile):
                opened += 1
                compare_with_gguf(found, path, f"{what} = {number}")
            else:
                assert str(found).isprintable()
    assert tried > 1000 and 0 < opened < tried / 2, (tried, opened)


def compare_with_gguf(file: ModelFile, path: Path, what: str) -> None:
    with file:
        try:
            reader = gguf.GGUFReader(path)
        except ValueError as error:
            unknown = [t for t in file.tensors if t.bytes == 0]
            assert unknown or isinstance(error, UnicodeDecodeError), (what, error)
            return
        assert [t.name for t in reader.tensors] == [t.name for t in file.tensors], what
        for theirs, ours in zip(reader.tensors, file.tensors, strict=True):
            assert tuple(reversed(theirs.shape.tolist())) == ours.shape and ours.bytes in (0, theirs.n_bytes), what
        for key, value in file.metadata.items():
            theirs_value = reader.fields[key].contents()
            mine = value.tolist() if isinstance(value, np.ndarray) else value
            same = theirs_value == mine or (mine != mine and theirs_value != theirs_value)
            assert same, (what, key)


def test_extents_agree_with_unbounded_integers(tmp_path: Path) -> None:
    """Random types, dimensions, offsets and alignments, many at the edge of 64 bits, against Python's integers."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    edges = [1, 2, 3, 31, 32, 33, 255, 256, 257, 1 << 16, (1 << 32) - 1, 1 << 32, 1 << 61, 1 << 62, *BIG]
    path, opened = tmp_path / "extent.gguf", 0
    for _ in range(4000):
        small = rng.random() < 0.5
        pool = [1, 2, 3, 32, 64, 256, 512] if small else edges
        dims = tuple(int(pool[rng.integers(len(pool))]) for _ in range(rng.integers(1, 5)))
        type_ = int(rng.choice(list(w.BLOCKS)))
        alignment = int(1 << rng.integers(3, 15))
        offset = int(rng.choice([0, 32, 4096, 1 << 14])) if small else edges[rng.integers(len(edges))]
        spec = Spec(kvs=(kv("general.alignment", w.U32, alignment),))
        spec = spec.with_tensors(TensorSpec("t", dims, type_, offset=offset, data=b"")).but(tail=bytes(1 << 14))
        data = spec.build()
        start = -(-w.integers(data)[-1][0] // alignment) * alignment
        values = math.prod(dims)
        block, size = w.BLOCKS[type_]
        good = dims[0] % block == 0 and values < 1 << 63 and offset % alignment == 0
        good = good and start + offset + values // block * size <= len(data)
        found = open_bytes(path, data)
        assert isinstance(found, ModelFile) == good, (dims, type_, offset, alignment, found)
        if isinstance(found, ModelFile):
            assert found.tensors[0].bytes == values // block * size
            found.close()
            opened += 1
    assert opened > 50


LEGAL = {
    "version 2": GOOD.but(version=2),
    "no keys": Spec(),
    "65535 bytes of key": BARE.with_kvs(kv("k" * 65535, w.U8, 1)),
    "a key that is not UTF-8": BARE.with_kvs(kv(b"\xff\xfe", w.U8, 1)),
    "a key that begins like another": BARE.with_kvs(kv("general", w.U8, 1), kv("general.", w.U8, 1)),
    "text with NUL": BARE.with_kvs(kv("t", w.STRING, "a\0b")),
    "text that is not UTF-8": BARE.with_kvs(kv("t", w.STRING, b"\xff"), kv("u", w.ARRAY, (w.STRING, [b"\xe2\x82"]))),
    "numbers that are none": BARE.with_kvs(kv("t", w.F32, float("nan")), kv("u", w.F64, float("inf"))),
    "a tensor of an unknown type": GOOD.with_tensors(TensorSpec("x", (7,), 99)),
    "four dimensions of 1": BARE.with_tensors(TensorSpec("x", (1, 1, 1, 1))),
    "bytes behind the data": GOOD.but(tail=b"more"),
    "a gap": BARE.with_tensors(TensorSpec("a"), TensorSpec("b", offset=1024)).but(tail=bytes(1024)),
    "data in another order": BARE.with_tensors(TensorSpec("a", offset=128), TensorSpec("b", offset=0)),
    "alignment 8": BARE.with_kvs(kv("general.alignment", w.U32, 8))
    .with_tensors(TensorSpec("a", (3,)))
    .but(alignment=8),
    "alignment 1 MiB": BARE.with_kvs(kv("general.alignment", w.U32, 1 << 20))
    .with_tensors(TensorSpec("a"))
    .but(alignment=1 << 20),
    "a split of one part": BARE.with_kvs(kv("split.no", w.U16, 0), kv("split.count", w.U16, 1)),
}


@pytest.mark.parametrize("name", LEGAL)
def test_odd_but_legal_file_opens(name: str, tmp_path: Path) -> None:
    found = open_bytes(tmp_path / "odd.gguf", LEGAL[name].build())
    assert isinstance(found, ModelFile), found
    with found:
        assert len(found.metadata) == len(LEGAL[name].kvs) and len(found.tensors) == len(LEGAL[name].tensors)
        assert len(dict(found.metadata)) == len(found.metadata)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    expected = {
        tmp_path: "found a directory",
        tmp_path / "pipe": "found a pipe",
        Path("/dev/zero"): "found a character device",
        tmp_path / "loop": "symbolic links",
        tmp_path / "gone": "No such file",
        tmp_path / "a\x1b[2Jb": "a\\x1b[2Jb: cannot be opened",
        tmp_path / ("x" * 300): "too long",
    }
    for path, says in expected.items():
        with pytest.raises(FileError, match=re.escape(says)):
            ModelFile(path)
    with pytest.raises(InvalidArgument, match="NUL"):
        ModelFile("a\0b")


# ---- split models ----


def part(no: int, count: int, tensors: tuple[TensorSpec, ...], total: int | None = None) -> bytes:
    spec = BARE.but(tensors=tensors).with_kvs(kv("split.no", w.U16, no), kv("split.count", w.U16, count))
    if total is not None:
        spec = spec.with_kvs(kv("split.tensors.count", w.I32, total))
    return spec.build()


def write_split(folder: Path, parts: list[bytes]) -> list[Path]:
    paths = [folder / f"m-{i + 1:05}-of-{len(parts):05}.gguf" for i in range(len(parts))]
    for path, data in zip(paths, parts, strict=True):
        path.write_bytes(data)
    return paths


def test_split_model_opens_whole(tmp_path: Path) -> None:
    specs = [(TensorSpec(f"t{i}", (32, i + 1)),) for i in range(3)]
    paths = write_split(tmp_path, [part(i, 3, specs[i], 3) for i in range(3)])
    with ModelFile(paths[0]) as file:
        assert [t.name for t in file.tensors] == ["t0", "t1", "t2"]
        assert file.bytes == sum(path.stat().st_size for path in paths)
        assert file.metadata["split.count"] == 3
    with pytest.raises(InvalidArgument, match=re.escape(f"is part 2 of 3; open {paths[0]}")):
        ModelFile(paths[1])
    paths[1].unlink()
    with pytest.raises(FileError, match=re.escape(str(paths[1]))):
        ModelFile(paths[0])


@pytest.mark.parametrize(
    ("name", "second", "says"),
    [
        ("not a GGUF file", b"<html>", "an HTML page"),
        ("cut off", part(1, 2, (TensorSpec("t1"),))[:-1], "is it cut off?"),
        ("no part of anything", BARE.build(), '"split.no": expected an integer, found no such key'),
        ("another part", part(0, 2, (TensorSpec("t1"),)), '"split.no": expected 1, found 0'),
        ("of another count", part(1, 3, (TensorSpec("t1"),)), '"split.count": expected 2, found 3'),
        ("the same tensor", part(1, 2, (TensorSpec("t0"),)), 'tensor "t0": expected once, found twice'),
        ("a tensor too many", part(1, 2, (TensorSpec("t1"), TensorSpec("t2"))), "expected the 3 tensors"),
    ],
)
def test_wrong_second_part(name: str, second: bytes, says: str, tmp_path: Path) -> None:
    paths = write_split(tmp_path, [part(0, 2, (TensorSpec("t0"),), 2), second])
    with pytest.raises(FormatError, match=re.escape(says)):
        ModelFile(paths[0])


# ---- memory ----

MEMORY_PROGRAM = """
import sys
from localllm.errors import LocalLLMError
from localllm.modelfile import ModelFile
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
before = peak()
try:
    ModelFile(sys.argv[1])
except LocalLLMError:
    pass
print(peak() - before)
"""

GREEDY = {
    "65536 keys": Spec(kvs=tuple(kv(f"{i}", w.U8, 0) for i in range(65536))),
    "65536 tensors": Spec(
        tensors=tuple(TensorSpec(f"{i}", (1,), 0, offset=32 * i, data=b"") for i in range(65536))
    ).but(tail=bytes(32 * 65536)),
    "2 Mi empty strings": Spec(
        kvs=(w.string("s") + pack(w.U32, w.ARRAY) + pack(w.U32, w.STRING) + pack(w.U64, 1 << 21) + bytes(8 << 21),)
    ),
    "a promise of 64 Mi items": Spec(
        kvs=(w.string("s") + pack(w.U32, w.ARRAY) + pack(w.U32, w.U64) + pack(w.U64, 64 << 20),)
    ),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory through /proc")
@pytest.mark.parametrize("name", GREEDY)
def test_memory_is_bounded_by_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "greedy.gguf"
    path.write_bytes(GREEDY[name].build())
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, path], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(done.stdout) <= 1.1 * path.stat().st_size + (64 << 20)


def test_metadata_without_end(tmp_path: Path) -> None:
    """An array of 320 MiB that is really there, but for a file that costs its writer nothing (a hole)."""
    path = tmp_path / "hole.gguf"
    items = pack(w.U32, w.ARRAY) + pack(w.U32, w.U64) + pack(w.U64, 40 << 20)
    with path.open("wb") as file:
        file.write(Spec(kvs=(w.string("hole") + items,)).build())
        file.truncate(400 << 20)
    with pytest.raises(FormatError, match='key "hole": expected at most 268435456 bytes of metadata'):
        ModelFile(path)


# ---- mutants under the sanitizers ----

SOURCES = ("native/base/*.c", "native/quant/types.c", "native/gguf/*.c", "tests/native/fuzz_gguf.c")


def build_fuzzer(folder: Path, *flags: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    sources = [str(path) for pattern in SOURCES for path in sorted(ROOT.glob(pattern))]
    folders = [f"-I{ROOT / name}" for name in ("native", "native/include", "native/base")]
    command = [compiler, "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *flags, *folders, *sources]
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if subprocess.run([compiler, *sanitize, probe, "-o", folder / "probe"], capture_output=True).returncode:
        pytest.skip("the C compiler has no sanitizers")
    done = subprocess.run([*command, *sanitize, "-o", folder / "fuzz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "fuzz"


def write_seeds(folder: Path) -> list[Path]:
    specs = {**LEGAL, "good": GOOD, "bare": BARE}
    paths = [folder / f"seed{i}.gguf" for i in range(len(specs))]
    for path, spec in zip(paths, specs.values(), strict=True):
        path.write_bytes(spec.build())
    return [path for path in paths if path.stat().st_size < 100_000]


def test_mutants_under_sanitizers(tmp_path: Path) -> None:
    fuzzer = build_fuzzer(tmp_path)
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    command = [fuzzer, "--mutate", str(seed), "4000", *write_seeds(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={"TMPDIR": str(tmp_path)})
    print(f"seed {seed}: {done.stdout}")
    assert done.returncode == 0, done.stderr
    counts = re.search(r"accepted (\d+), refused (\d+)", done.stdout)
    assert counts and int(counts[1]) > 100 and int(counts[2]) > 1000


def test_catalogue_under_sanitizers_with_every_allocation_refused_in_turn(tmp_path: Path) -> None:
    wraps = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"
    fuzzer = build_fuzzer(tmp_path, "-DFAIL_ALLOC", wraps)
    paths = write_seeds(tmp_path)
    for i, case in enumerate(CASES):
        paths.append(tmp_path / f"case{i}.gguf")
        paths[-1].write_bytes(case.data)
    done = subprocess.run([fuzzer, *paths], capture_output=True, text=True, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert f"refused {len(CASES)}" in done.stdout
