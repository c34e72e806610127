"""A child process for work that a stranger's text may make endless: rendering a model's template, compiling the form of
an answer. The child bounds its own memory and processor time (limited.py); here the wall clock is guarded.

It is started by the first message, or earlier by prestart(). When its work breaks a limit it is killed, and the next
message starts another. Where the child is at fault, as when somebody stops or kills it, the error is ChildError.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from localllm.errors import ChildError

START_SECONDS = 30.0
WORK_SECONDS = 2.0  # by the wall clock; processor time is bounded by the child itself
STARVED_SECONDS = 1.0  # of processor time, more than any honest work needs: before that, a late child is starved
PATIENCE_SECONDS = 10.0  # by the wall clock, for a starved child


class Child:
    """Thread-safe. The process and the pipes to it, all under one lock: it does one thing at a time.

    program: a file beside this one. packages: what it imports; it looks nowhere else. does: what it is for, in words.
    failed: the error for work that broke a limit, of the words that say how."""

    def __init__(self, program: str, packages: Sequence[str], does: str, failed: Callable[[str], Exception]) -> None:
        self._program, self._packages, self._does, self._failed = program, packages, does, failed
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it: after a fork, a child of the fork starts its own
        self._ready = False

    def prestart(self) -> None:
        """Starts it now, without waiting for it."""
        with self._lock, suppress(ChildError):  # the first message tells what is wrong
            self._start()

    def ask(self, body: bytes) -> Any:
        """Its answer to a message in JSON, as JSON has it."""
        with self._lock:
            try:
                process = self._start()
                if not self._ready:
                    self._exchange(process, b"", START_SECONDS, START_SECONDS)
                    self._ready = True
                return self._exchange(process, len(body).to_bytes(4, "big") + body, WORK_SECONDS, PATIENCE_SECONDS)
            except BaseException:  # also KeyboardInterrupt: an answer left in the pipe would be the next one's
                self._stop()
                raise

    def _start(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self._owner == os.getpid() and self.process.poll() is None:
            return self.process
        if self._owner == os.getpid():
            self._stop()
        program = Path(__file__).with_name(self._program)
        try:
            self.process = subprocess.Popen(
                [sys.executable or "python3", "-I", "-S", str(program), *self._folders()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ChildError(f"the process that {self._does} cannot be started: {error}") from None
        if self._owner != os.getpid():
            atexit.register(self._stop)
        self._owner, self._ready = os.getpid(), False
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        return self.process

    def _stop(self) -> None:
        process, self.process = self.process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _exchange(self, process: subprocess.Popen[bytes], message: bytes, seconds: float, patience: float) -> Any:
        """Its answer to a message, within so many seconds; where it had little processor time, with more patience."""
        assert process.stdin is not None and process.stdout is not None
        begun, start = processor_seconds(process.pid), time.monotonic()
        left, data, poller = memoryview(message), bytearray(), select.poll()
        poller.register(process.stdout, select.POLLIN)
        if left:
            poller.register(process.stdin, select.POLLOUT)
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            passed = time.monotonic() - start
            ready = dict(poller.poll(max(0.05, seconds - passed) * 1000))
            if ready.get(process.stdin.fileno()):
                left = _written(process.stdin.fileno(), left)
                if not left:
                    poller.unregister(process.stdin)
            if ready.get(process.stdout.fileno()):
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._ended(process.wait())
                data += chunk
            if passed > seconds:
                self._check_patience(processor_seconds(process.pid) >= begun + STARVED_SECONDS, passed > patience)
        return json.loads(data[4:])

    def _check_patience(self, used_much: bool, over: bool) -> None:
        """Raises what is wrong with a child that is late."""
        if over:
            raise ChildError(f"the process that {self._does} does not answer")
        if used_much:
            raise self._failed(f"took more than {WORK_SECONDS} s")

    def _ended(self, code: int) -> Exception:
        """Why there is no answer from a child that has ended."""
        if code == -signal.SIGPROF:
            return self._failed("took more than 2 s of processor time")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if code in (-signal.SIGKILL, -signal.SIGTERM):  # no work can do this
            return ChildError(f"the process that {self._does} was ended by somebody ({how})")
        return self._failed(f"ended its process ({how})")

    def _folders(self) -> list[str]:
        """Where the packages, and this one, are installed."""
        folders = []
        for name in self._packages:
            found = importlib.util.find_spec(name)
            if found is None or not found.submodule_search_locations:
                raise ChildError(f"the process that {self._does} needs the Python package {name}, which is missing")
            folders.append(str(Path(found.submodule_search_locations[0]).resolve().parent))
        return list(dict.fromkeys([*folders, str(Path(__file__).resolve().parents[2])]))


def _written(pipe: int, data: memoryview) -> memoryview:
    """What is left of it after a write that does not wait; nothing where the reader is gone, as its end will tell."""
    try:
        return data[os.write(pipe, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[len(data) :]


def processor_seconds(process: int) -> float:
    """The processor time that a process has used; without end on a system that does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
