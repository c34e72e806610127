"""The checked arithmetic against Python's unbounded integers, the printable text against Python's own tables, and a
file that changes while it is read."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

WORD = 1 << 64
NEAR = [(1 << k) + d for k in (0, 1, 5, 31, 32, 33, 48, 62, 63, 64) for d in (-2, -1, 0, 1, 2)]
EDGES = sorted({a for a in NEAR if 0 <= a < WORD})


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("probe") / "probe"
    sources = [*sorted((ROOT / "native" / "base").glob("*.c")), ROOT / "tests" / "native" / "probe_base.c"]
    folders = [f"-I{ROOT / name}" for name in ("native", "native/include", "native/base")]
    command = [compiler, "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *folders, *sources, "-o", out]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if subprocess.run([*command, *sanitize], capture_output=True).returncode:
        subprocess.run(command, check=True)
    return out


def ask(probe: Path, requests: list[str]) -> list[str]:
    done = subprocess.run([probe], input="\n".join(requests) + "\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_arithmetic_never_wraps(probe: Path) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    some = [
        int(x) >> int(s) for x, s in zip(rng.integers(0, WORD, 4000, np.uint64), rng.integers(0, 64, 4000), strict=True)
    ]
    pairs = [(a, b) for a in EDGES for b in EDGES] + list(zip(some[::2], some[1::2], strict=True))
    requests, expected = [], []

    def expect(request: str, result: int, fits: bool) -> None:
        requests.append(request)
        expected.append(f"1 {result}" if fits else "0 0")

    for a, b in pairs:
        expect(f"add {a} {b}", a + b, a + b < WORD)
        expect(f"mul {a} {b}", a * b, a * b < WORD)
        expect(f"range {a} {b} {(a + b) % WORD}", 0, a + b < WORD)
        expect(f"range {a} {b} {max(a, b)}", 0, a + b <= max(a, b))
        step = 1 << (b % 64)
        up = -(-a // step) * step
        expect(f"align {a} {step}", up, up < WORD)
    assert len(requests) > 10_000 and ask(probe, requests) == expected


def is_shown(char: str) -> bool:
    """Neither a control, nor a mark that reorders or hides text, nor beyond the planes in use."""
    hidden = "\u061c\ufeff" + "".join(
        map(chr, [*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070)])
    )
    return unicodedata.category(char) != "Cc" and char not in hidden and ord(char) < 0xE0000


def as_printable(raw: bytes) -> str:
    out = ""
    for char in raw.decode("utf-8", "surrogateescape"):
        escaped = "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        out += char if not "\udc80" <= char <= "\udcff" and is_shown(char) else escaped
    return out


def test_printable_text(probe: Path) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    raws = [bytes([a]) for a in range(1, 256)] + [b"", b"\0a", "wörd \u202e \U0001f600 \x9b".encode(), b"\xed\xa0\x80"]
    raws += [b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xe2\x82", b"\xf0\x9f\x98", "\u0430\U000e0041\ufeff".encode()]
    raws += [rng.integers(0, 256, rng.integers(1, 40), np.uint8).tobytes() for _ in range(500)]
    raws += ["".join(map(chr, rng.integers(0x20, 0xD800, 9))).encode() for _ in range(500)]
    assert ask(probe, [f"show 400 {raw.hex()}" for raw in raws]) == [as_printable(raw) for raw in raws]
    long = ("wörd\x1b" * 40).encode()
    for size in range(16, 60):
        (cut,) = ask(probe, [f"show {size} {long.hex()}"])
        assert cut.endswith("...") and as_printable(long).startswith(cut[:-3])
        assert size - 8 <= len(cut.encode()) < size


@pytest.mark.parametrize("change", ["nothing", "truncated", "appended", "overwritten"])
def test_a_file_that_changes_while_it_is_opened(change: str, probe: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" * 1000)
    child = subprocess.Popen([probe], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin and child.stdout
    with child:
        child.stdin.write(f"examine {path}\n")
        child.stdin.flush()
        assert child.stdout.readline() == "open\n"
        with path.open("r+b") as file:
            if change == "truncated":
                file.truncate(17)
            elif change == "appended":
                file.seek(0, 2)
                file.write(b"more")
            elif change == "overwritten":
                file.write(b"EVIL")
        child.stdin.write("\n")
        child.stdin.close()
        said = child.stdout.read()
    assert said == {"nothing": "as it was\n", "truncated": "was truncated\n"}.get(change, "was changed\n")
