"""A server of its own for a test: a tiny model behind a free port, in a thread, with the objects inside at hand."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from localllm import LLM
from localllm.config import ServeOptions
from localllm.llm import Request
from localllm.params import SamplingParams
from localllm.server.running import Running, address_of, listen
from localllm.server.service import Service


class Live:
    def __init__(self, llm: LLM, **options: Any) -> None:
        self.llm = llm
        self.options = ServeOptions(port=0, **options)
        self.sock = listen(self.options.host, 0)
        self.url = address_of(self.sock)
        self.port = int(self.url.rpartition(":")[2])
        self.service = Service(llm, self.options)
        self.running = Running(self.service)
        self.thread = threading.Thread(target=self.running.serve_on, args=(self.sock,))
        self.thread.start()
        wait_until(lambda: self.running.started)

    def stop(self) -> None:
        self.running.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server does not end"

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **more)

    def openai(self, **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=60, **more)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, data: bytes) -> bytes:
        """What comes back on a connection of its own until it is closed; it is half closed when all was sent."""
        with self.connect() as sock:
            try:
                sock.sendall(data)
                return read_all(sock)
            except (ConnectionResetError, BrokenPipeError):
                return b""

    def wait_until_idle(self) -> None:
        wait_until(lambda: not self.service.jobs and not self.llm.stats.running and not self.llm.stats.waiting)
        stats = self.llm.stats
        assert stats.blocks_free == stats.blocks, "KV blocks are still held"


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def force(live: Live, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The model answers with this text, as if it had wanted to."""
    constrain = live.llm.constrain

    def forced(request: Request, params: SamplingParams) -> Request:
        form = live.llm._compiler.form(grammar=f"start: {json.dumps(text)}")
        return constrain(request, params)._replace(form=form)

    monkeypatch.setattr(live.llm, "constrain", forced)


@contextmanager
def serving(path: Path, llm_options: dict[str, Any] | None = None, **options: Any) -> Iterator[Live]:
    with LLM(path, threads=1, max_batch=options.get("max_batch", 32), **(llm_options or {})) as llm:
        live = Live(llm, **options)
        try:
            yield live
        finally:
            live.stop()


class Process:
    """`localllm serve` as people start it."""

    def __init__(self, path: Path | None, *arguments: str, command: list[str] | None = None, **more: Any) -> None:
        usual = [sys.executable, "-m", "localllm", "serve", str(path), "--port", "0", "-t", "1", *arguments]
        command = command or usual
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        self.process: subprocess.Popen[str] = subprocess.Popen(command, **more)
        assert self.process.stderr is not None
        self.said = ""
        while "(Ctrl-C" not in self.said:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        found = re.search(r"http://127.0.0.1:\d+", self.said)
        assert found is not None
        self.url = found[0]

    def end(self, sig: int) -> tuple[int, str]:
        """(exit code, standard output)."""
        self.process.send_signal(sig)
        out, self.err = self.process.communicate(timeout=60)
        return self.process.returncode, out
