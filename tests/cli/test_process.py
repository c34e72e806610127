"""`localllm run` as a process of its own, with pipes and on a pseudo-terminal: what a person at a keyboard meets."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_models import write_tiny

COMMAND = [sys.executable, "-m", "localllm", "run", "--temperature", "3", "-t", "1"]
PATIENCE = 60.0  # seconds: other work may share the machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Large and long enough that an answer without an end takes seconds."""
    path = tmp_path_factory.mktemp("process") / "tiny.gguf"
    write_tiny(path, embd=256, ff=512, layers=4, heads=8, context=8192, vocab=900, never=(256, 257, 258))
    return str(path)


PROMPT = r"\n> \Z"  # at the end of what is shown: a random answer may hold a prompt's characters


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *args: str) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*COMMAND, *args], {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
        self.shown = ""

    def wait_for(self, pattern: str) -> str:
        """Reads until the pattern is shown; returns what came since the last wait."""
        start, end = len(self.shown), time.monotonic() + PATIENCE
        while not re.search(pattern, self.shown[start:], re.DOTALL):
            assert time.monotonic() < end, f"waited for {pattern!r}, saw {self.shown!r}"
            if not select.select([self._descriptor], [], [], 1.0)[0]:
                continue
            try:
                self.shown += os.read(self._descriptor, 65536).decode("utf-8", "replace")
            except OSError:  # the command has ended
                assert re.search(pattern, self.shown[start:], re.DOTALL), f"it ended: {self.shown!r}"
        return self.shown[start:]

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def exit_code(self) -> int:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if select.select([self._descriptor], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._descriptor, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def terminal(model: str) -> Iterator[Terminal]:
    opened = Terminal("-m", model)
    yield opened
    opened.close()


def test_a_conversation(terminal: Terminal) -> None:
    terminal.wait_for("/help.*> ")
    terminal.type("/help\n")
    assert "/clear" in terminal.wait_for("Ctrl-C stops.*> ")
    terminal.type("/dance\n")
    terminal.wait_for("/dance is not known.*> ")
    terminal.type("hello\n")
    terminal.wait_for("hello\r\n.{200}")
    terminal.type("\x03")  # Ctrl-C stops the answer and not the conversation
    terminal.wait_for(PROMPT)
    terminal.type("half a line")
    terminal.wait_for("half a line")
    time.sleep(0.5)  # a Ctrl-C that comes before input() waits for keys is seen only at the next key
    terminal.type("\x03")
    terminal.wait_for(PROMPT)
    terminal.type("/clear\n")
    terminal.wait_for(PROMPT)
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.shown


def test_an_answer_cannot_drive_the_terminal(model: str) -> None:
    """A random model at a high temperature writes every control character there is."""
    terminal = Terminal("-m", model, "hello", "-n", "400", "--seed", "1")
    assert terminal.exit_code() == 0
    terminal.close()
    assert len(terminal.shown) > 500
    assert re.search(r"\\u\{1?[0-9a-f]\}", terminal.shown)  # controls, shown instead of obeyed
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", terminal.shown)
    assert "\r" not in terminal.shown.replace("\r\n", "")  # the line ends are the terminal's


def test_ctrl_c_keeps_the_answer_so_far_and_exits_with_130(model: str) -> None:
    terminal = Terminal("-m", model, "hello", "--stats")
    terminal.wait_for(".{300}")
    terminal.type("\x03")
    assert terminal.exit_code() == 130
    terminal.close()
    assert "decode" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_an_interrupted_json_answer_is_whole(model: str) -> None:
    process = subprocess.Popen([*COMMAND, "-m", model, "hello", "--json", "-v"], stdout=-1, stderr=-1, stdin=-3)
    assert process.stderr is not None
    assert b"context 8192" in process.stderr.readline()  # the plan: the answer begins next
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert b'"finish_reason": "abort"' in out
    assert b"Traceback" not in err


def test_a_reader_that_leaves_ends_it_quietly(model: str) -> None:
    process = subprocess.Popen([*COMMAND, "-m", model, "hello"], stdout=-1, stderr=-1, stdin=-3)
    assert process.stdout is not None
    assert process.stdout.read(20)
    process.stdout.close()
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, b"")


@pytest.mark.parametrize(("closed", "code"), [("<&-", 0), (">&-", 1), ("2>&-", 0)])
def test_closed_streams(model: str, closed: str, code: int) -> None:
    line = f"{shlex.join([*COMMAND, '-m', model, 'hello', '-n', '2'])} {closed}"
    done = subprocess.run(line, shell=True, capture_output=True, stdin=-3, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    program = "import sys; from localllm.cli import _run; _run(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    heavy = ("numpy", "tokenizers", "cffi", "jinja2", "rich", "asyncio", "huggingface_hub", "localllm.bindings")
    assert not [name for name in heavy if f"'{name}'" in out]


def test_help_is_quick() -> None:
    """150 ms on an idle machine, about ten times an interpreter that does nothing; numpy alone would make it twenty."""
    bare = sum(processor_seconds("-c", "pass") for _ in range(10)) / 10
    assert min(processor_seconds("-m", "localllm", "--help") for _ in range(10)) < max(0.15, 15 * bare)


def processor_seconds(*arguments: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def test_the_model_may_lie_in_the_hub_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--user--repo" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    write_tiny(snapshot / "tiny-F32.gguf")
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    command = [*COMMAND, "-m", "user/repo:F32", "hello", "-n", "3"]
    done = subprocess.run(command, capture_output=True, env=environment, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
