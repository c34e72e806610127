"""What is done before an answer begins: whose client has left is not prepared, and a renderer that fails is told."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from localllm.server.lanes import Lane
from localllm.text import child, template
from tests.server.live import Live, serving, wait_until
from tests.tiny_models import CHATML, write_tiny

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
TEXT = {"prompt": "x", "max_tokens": 2}


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("talking") / "tiny.gguf"
    write_tiny(file, context=512, chat_template=CHATML)
    return file


def ask(server: Live, path: str, body: dict[str, Any]) -> socket.socket:
    data = json.dumps(body).encode()
    sock = server.connect()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    sock.sendall(head.encode() + b"\r\n\r\n" + data)
    return sock


class Gate:
    """Holds a function's callers until it is opened, and counts them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._opened, self.calls = function, threading.Event(), 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        assert self._opened.wait(20)
        return self._function(*arguments)

    def open(self) -> None:
        self._opened.set()


def test_who_has_left_is_not_prepared(talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One conversation is being rendered and seven wait, when all the clients leave."""
    with serving(talking) as server:
        gate = Gate(server.llm.prepare)
        monkeypatch.setattr(server.llm, "prepare", gate)
        socks = [ask(server, "/v1/chat/completions", CHAT) for _ in range(8)]
        wait_until(lambda: len(server.service.preparations) == 8 and gate.calls == 1)
        for sock in socks:
            sock.close()
        wait_until(lambda: not server.service.preparations)
        gate.open()
        assert server.post("/v1/chat/completions", CHAT).status_code == 200
        assert gate.calls == 2 and server.llm.stats.generated_tokens == 2


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", TEXT), ("/tokenize", {"content": "x"})])
def test_rendering_holds_up_nothing_else(
    talking: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    with serving(talking) as server:
        gate = Gate(server.llm._template.render)
        monkeypatch.setattr(server.llm._template, "render", gate)
        socks = [ask(server, "/v1/chat/completions", CHAT) for _ in range(8)]
        wait_until(lambda: gate.calls == 1)
        assert httpx.post(server.url + path, json=body, timeout=10).status_code == 200
        gate.open()
        for sock in socks:
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            sock.close()


def test_a_renderer_that_is_stopped_is_the_servers_fault(talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(child, "WORK_SECONDS", 0.1)
    with serving(talking) as server:
        assert server.post("/v1/chat/completions", CHAT).status_code == 200
        process = template._CHILD.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        refused = server.post("/v1/chat/completions", CHAT)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "child_failed"
        assert refused.json()["error"]["param"] is None
        assert httpx.get(server.url + "/health").json()["last_failure"] == "child_failed"
        assert server.post("/v1/chat/completions", CHAT).status_code == 200


def test_long_texts_to_tokenize_hold_up_no_large_body(talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(talking) as server:
        gate = Gate(server.llm.tokenize)
        monkeypatch.setattr(server.llm, "tokenize", gate)
        sock = ask(server, "/tokenize", {"content": "x" * 100_000})
        wait_until(lambda: gate.calls == 1)
        body = TEXT | {"user": "u" * 100_000}
        assert httpx.post(server.url + "/v1/completions", json=body, timeout=10).status_code == 200
        gate.open()
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        sock.close()


def test_texts_to_tokenize_are_bounded(server: Live) -> None:
    refused = server.post("/tokenize", {"content": "x" * ((4 << 20) + 1)})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "content"


def test_clients_take_turns_in_a_lane() -> None:
    async def order() -> list[str]:
        lane, gate, done = Lane("test"), threading.Event(), []
        works = [asyncio.create_task(lane.run("a", gate.wait))]
        await asyncio.sleep(0.05)
        works += [asyncio.create_task(lane.run(client, done.append, client)) for client in "aaaabbc"]
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*works)
        lane.close()
        return done

    assert "".join(asyncio.run(order())) == "abcabaa"


def test_what_is_being_prepared_when_the_server_is_told_to_end_is_answered(
    talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(talking) as server:
        gate = Gate(server.llm.prepare)
        monkeypatch.setattr(server.llm, "prepare", gate)
        with ThreadPoolExecutor() as pool:
            reply = pool.submit(server.post, "/v1/chat/completions", CHAT)
            wait_until(lambda: gate.calls == 1)
            server.running.should_exit = True
            wait_until(lambda: server.service.draining)
            gate.open()
            assert reply.result().status_code == 200


def test_bodies_have_bounded_room_together(talking: Path) -> None:
    with serving(talking) as server:
        server.service.room.most = 3000
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with server.connect() as sock:
            sock.sendall(head + b"Content-Length: 2500\r\n\r\n" + b" " * 2400)
            wait_until(lambda: server.service.room.used == 2400)
            refused = server.post("/v1/completions", TEXT | {"user": "x" * 1000})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert server.post("/v1/completions", TEXT).status_code == 200
        wait_until(lambda: server.service.room.used == 0)


def test_what_a_template_may_leave_out_is_bounded_too(talking: Path) -> None:
    with serving(talking) as server:
        long = [{"role": "user", "content": "x", "name": "<|im_" * 300_000}]
        refused = server.post("/v1/chat/completions", CHAT | {"messages": long})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "m\udcff.gguf"
    write_tiny(file, context=64)
    with serving(file) as server:
        assert [model["id"] for model in httpx.get(server.url + "/v1/models").json()["data"]] == ["m?"]
        assert server.post("/v1/completions", TEXT | {"model": "m?.gguf"}).json()["model"] == "m?"
