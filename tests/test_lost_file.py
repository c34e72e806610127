"""A model file that is changed or cut short while it is in use, in processes of their own: SIGBUS ends one that has not
asked for the guard."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tiny_models import write_tiny

BEGIN = """
import faulthandler, mmap, os, signal, sys
from localllm import LLM
from localllm.errors import FileError
from localllm.modelfile import guard_files
path, other = sys.argv[1:]
"""
ANSWER = """
llm = LLM(path, threads=2)
llm.generate("once upon", max_tokens=3)
os.truncate(path, 5000)
for _ in range(2):
    try:
        llm.generate("once upon", max_tokens=3)
        raise SystemExit("no error")
    except FileError as error:
        assert "tiny.gguf" in str(error) and "was truncated" in str(error), error
LLM(other, threads=1).generate("x", max_tokens=2)
llm.close()
again = LLM(other, threads=1)  # where the map of the first was
assert again.generate("x", max_tokens=2).token_ids
print("alive")
"""
STRANGER = """
with open(path, "r+b") as file:
    own = mmap.mmap(file.fileno(), 0)
    file.truncate(100)
    own[5000]
"""


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("tiny", "other"):
        write_tiny(tmp_path / f"{name}.gguf", context=256)
    return tmp_path / "tiny.gguf", tmp_path / "other.gguf"


def run(program: str, models: tuple[Path, Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BEGIN + program, *map(str, models)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_truncated_file_ends_answers_and_not_the_process(models: tuple[Path, Path]) -> None:
    done = run("guard_files()\nguard_files()\n" + ANSWER, models)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_without_the_guard_it_ends_the_process(models: tuple[Path, Path]) -> None:
    """What the guard is for; and a library alone changes no signal."""
    assert run(ANSWER, models).returncode == -signal.SIGBUS


@pytest.mark.parametrize("program", [STRANGER, "os.kill(os.getpid(), signal.SIGBUS)"])
def test_other_errors_of_the_bus_are_what_they_were(program: str, models: tuple[Path, Path]) -> None:
    assert run(f"llm = LLM(other)\nguard_files()\n{program}", models).returncode == -signal.SIGBUS


def test_the_handler_before_is_asked(models: tuple[Path, Path]) -> None:
    done = run(f"faulthandler.enable()\nguard_files()\n{STRANGER}", models)
    assert done.returncode == -signal.SIGBUS and "Bus error" in done.stderr


def test_a_signal_that_was_ignored_is(models: tuple[Path, Path]) -> None:
    program = "signal.signal(signal.SIGBUS, signal.SIG_IGN)\nguard_files()\nos.kill(os.getpid(), signal.SIGBUS)\n"
    done = run(program + "print('alive')", models)
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.parametrize("change", ["overwritten", "appended", "touched"])
def test_a_file_that_was_written_to(change: str, models: tuple[Path, Path]) -> None:
    from localllm import LLM
    from localllm.errors import FileError

    path = models[0]
    with LLM(path, threads=1) as llm:
        shutil.copy(models[1], path.with_name("new"))
        llm.check_file()
        data = path.read_bytes()
        if change == "touched":
            os.utime(path)
        else:
            with path.open("r+b") as file:
                file.seek(-32 if change == "overwritten" else 0, os.SEEK_END)
                file.write(data[-32:])
        with pytest.raises(FileError, match=r"tiny\.gguf: was changed while"):
            llm.check_file()
        with pytest.raises(FileError, match="was changed"):
            llm.generate("x", max_tokens=2)


def test_a_length_that_grew_since_it_was_checked(models: tuple[Path, Path]) -> None:
    """Texts are read when they are first asked for, perhaps long after the file was opened."""
    from localllm.errors import FileError
    from localllm.modelfile import ModelFile

    with ModelFile(models[0]) as file:
        at = models[0].read_bytes().index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 4 + 4 + 8
        with models[0].open("r+b") as other:
            other.seek(at)
            other.write((1 << 40).to_bytes(8, "little"))
        with pytest.raises(FileError, match="was changed while it was in use"):
            file.metadata["tokenizer.ggml.tokens"]


def test_a_file_that_was_replaced_or_deleted_is_whole(models: tuple[Path, Path]) -> None:
    from localllm import LLM

    with LLM(models[0], threads=1) as llm:
        before = llm.generate("x", max_tokens=5, seed=1).token_ids
        os.replace(models[1], models[0])
        assert llm.generate("x", max_tokens=5, seed=1).token_ids == before
        models[0].unlink()
        assert llm.generate("x", max_tokens=5, seed=1).token_ids == before
