"""Bytes that are not quite HTTP, connections that do not get on, and heads without end: each is ended, none harms."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from localllm.server import protocol
from tests.server.live import Live, read_all, serving, wait_until

HOST = b"Host: localhost\r\n"
GET = b"GET /v1/models HTTP/1.1\r\n"
BODY = b'{"content": "x"}'
POST = b"POST /tokenize HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module", params=["h11", "httptools"])
def server(request: pytest.FixtureRequest, tiny: Path) -> Iterator[Live]:
    """On each of the parsers that the server may run on."""
    if request.param == "httptools":
        pytest.importorskip("httptools")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            patch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
        with serving(tiny) as live:
            assert request.param == ("h11" if live.running.config.http is protocol.Protocol else "httptools")
            yield live


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n", b"GET\r\n\r\n", b"\x00" * 100, b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01" + b"x" * 200,
        b"GET / HTTP/1.1\nHost localhost\n\n", POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: x\r\n\r\n", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        POST + b"Content-Length: 99999999999999999999\r\n\r\n", POST + b"Content-Length: 70000000\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        GET + HOST + b"X-\x01: y\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"TRACE / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    ],
)  # fmt: skip
def test_refused_without_harm(server: Live, data: bytes) -> None:
    with server.connect() as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = read_all(sock)
        except OSError:
            answer = b""
    assert status(answer) not in range(200, 300), answer[:200]
    assert b"Traceback" not in answer
    assert server.post("/tokenize", {"content": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (GET + HOST, 200),
        (GET + HOST + b"X: " + b"y" * 32_000 + b"\r\n", 200),
        (GET + HOST + b"X: " + b"y" * 33_000 + b"\r\n", 431),
        (GET + HOST + b"X: " + b"y" * 100_000 + b"\r\n", 431),
        (GET + HOST + b"X: y\r\n" * 90, 200),
        (GET + HOST + b"X: y\r\n" * 200, 431),
        (b"GET /v1/models?" + b"a" * 8000 + b" HTTP/1.1\r\n" + HOST, 200),
        (b"GET /v1/models?" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST, 414),
    ],
    ids=["plain", "32 kB", "33 kB", "100 kB", "90 fields", "200 fields", "URL of 8 kB", "URL of 9 kB"],
)
@pytest.mark.parametrize("pieces", [1, 10])
def test_heads_are_bounded(server: Live, head: bytes, expected: int, pieces: int) -> None:
    """In one piece or in several."""
    data = head + b"Connection: close\r\n\r\n"
    size = -(-len(data) // pieces)
    with server.connect() as sock:
        try:
            for at in range(0, len(data), size):
                sock.sendall(data[at : at + size])
                time.sleep(0.01 * (pieces > 1))
        except OSError:  # refused before it was all sent
            assert expected == 431
        try:
            answer = read_all(sock)
        except ConnectionResetError:
            answer = b"HTTP/1.1 431"
    assert status(answer) == expected


def test_a_head_without_end_is_cut(server: Live) -> None:
    """Whole lines of it, so that a parser which counts only the current line would take them for ever."""
    with server.connect() as sock:
        sent = 0
        try:
            sock.sendall(b"GET / HTTP/1.1\r\n" + HOST)
            while sent < 10 * protocol.MOST_HEAD:
                sock.sendall(b"X: " + b"y" * 1000 + b"\r\n")
                sent += 1005
                time.sleep(0.001)
        except OSError:
            pass
    assert sent < 10 * protocol.MOST_HEAD


def test_pipelined_requests_are_answered_in_order(server: Live) -> None:
    one = POST + b"Content-Length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
    last = b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    answer = server.raw(one + one + last)
    assert answer.count(b"HTTP/1.1 200") == 3 and answer.index(b"tokens") < answer.index(b"tiny")


def test_packets_do_not_wait_for_each_other(server: Live) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
        sock.recv(1 << 16)
        (connection,) = [one for one in server.running.server_state.connections if not one.transport.is_closing()]
        own = connection.transport.get_extra_info("socket")
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_body_in_chunks_and_bits(server: Live) -> None:
    with server.connect() as sock:
        head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        for byte in head + b"8\r\n" + BODY[:8] + b"\r\n8\r\n" + BODY[8:] + b"\r\n0\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert b"tokens" in read_all(sock)


def test_refusals_before_a_request_are_error_objects(server: Live) -> None:
    for data, expected, code in [(b"GET / HTTP/1.1\r\nbad head\r\n\r\n", 400, "bad_request"),
                                 (GET + b"X: " + b"y" * 40_000, 431, "headers_too_large")]:  # fmt: skip
        head, _, body = server.raw(data).partition(b"\r\n\r\n")
        assert status(head) == expected and json.loads(body)["error"]["code"] == code


def test_another_protocol_is_not_spoken_and_nobody_is_told(server: Live, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
    assert status(server.raw(GET + HOST + upgrade + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")) == 200
    assert not caplog.records


@contextmanager
def held_answer(server: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """A request whose answer no step goes on with while the block lasts."""
    data, gate = json.dumps({"prompt": "once", "max_tokens": 400, "ignore_eos": True}).encode(), threading.Event()
    runner = server.llm._engine._runner
    step = runner.step
    monkeypatch.setattr(runner, "step", lambda rows: gate.wait(20) and step(rows))
    yield POST.replace(b"/tokenize", b"/v1/completions") + b"Content-Length: %d\r\n\r\n" % len(data) + data
    gate.set()
    server.wait_until_idle()


def ends_soon(server: Live) -> bool:
    """Whether the server lets go of all requests within 3 s, less than an answer that is held."""
    left = time.monotonic()
    while server.service.jobs and time.monotonic() < left + 3:
        time.sleep(0.01)
    return not server.service.jobs


class TestPipelining:
    @pytest.mark.parametrize("ahead", [b"", POST, POST + b"Content-Length: 16\r\n\r\n" + BODY, POST[:9]])
    @pytest.mark.parametrize("later", [False, True])
    def test_who_leaves_is_noticed_behind_another_request(
        self, server: Live, ahead: bytes, later: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with held_answer(server, monkeypatch) as first:
            with server.connect() as sock:
                sock.sendall(first if later else first + ahead)
                wait_until(lambda: bool(server.service.jobs))
                if later:
                    sock.sendall(ahead)
                    time.sleep(0.05)
            assert ends_soon(server)

    def test_who_sends_far_ahead_is_cut_off(self, server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        with held_answer(server, monkeypatch) as first:
            with server.connect() as sock:
                sock.sendall(first)
                wait_until(lambda: bool(server.service.jobs))
                with pytest.raises(OSError):
                    for _ in range(1000):
                        sock.sendall(GET + HOST + b"\r\n" + b"GET /v1/models")
                        sock.sendall(b" HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 1000 + b"\r\n\r\n")
                        time.sleep(0.001)
            assert ends_soon(server)


class TestCrowds:
    """With fewer connections than there may be, since both of their ends lie in this process."""

    def test_idle_connections_keep_nobody_out(self, server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "CONNECTIONS", 100)
        monkeypatch.setattr(protocol, "SPARE", 10)
        idle = [server.connect() for _ in range(protocol.CONNECTIONS + protocol.SPARE + 50)]
        assert httpx.get(server.url + "/health").status_code == 200
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).status_code == 200
        idle[0].settimeout(5)
        assert idle[0].recv(1) == b""  # the oldest was closed
        for sock in idle:
            sock.close()

    def test_too_many_requests_are_told_and_health_is_not_one_of_them(
        self, server: Live, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wait_until(lambda: not server.running.server_state.connections)
        monkeypatch.setattr(protocol, "CONNECTIONS", 8)
        monkeypatch.setattr(protocol, "SPARE", 3)
        busy = [server.connect() for _ in range(8)]
        for sock in busy:
            sock.sendall(POST + b"Content-Length: 16\r\n\r\n{")
        idle: list[socket.socket] = []
        for _ in range(6):
            idle.append(server.connect())
            refused = server.post("/tokenize", {"content": "x"})
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "too_many_requests"
            assert refused.headers["retry-after"] == "1"
            assert httpx.get(server.url + "/health").status_code == 200
        for sock in busy:
            sock.sendall(BODY[1:])
            assert status(sock.recv(1000)) == 200
        for sock in busy + idle:
            sock.close()


class TestSlowness:
    """With limits of a fraction of a second in place of many."""

    def test_a_head_that_does_not_come(self, server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
        for start in (b"", b"GET / HT"):
            with server.connect() as sock:
                sock.sendall(start)
                begun = time.monotonic()
                read_all(sock)
                assert time.monotonic() - begun < 10

    def test_a_head_by_the_byte(self, server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
        with server.connect() as sock, pytest.raises(OSError):
            for _ in range(2000):
                sock.sendall(b"G")
                time.sleep(0.005)

    def test_a_body_that_does_not_come(self, server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("localllm.server.body.IDLE_SECONDS", 0.3)
        with server.connect() as sock:
            sock.sendall(POST + b"Content-Length: 100\r\n\r\n{")
            assert status(read_all(sock)) == 408

    def test_many_at_once_do_not_keep_others_out(self, server: Live) -> None:
        slow = [server.connect() for _ in range(200)]
        try:
            for sock in slow:
                sock.sendall(POST + b"Content-Length: 100\r\n\r\n{")
            assert server.post("/tokenize", {"content": "x"}).status_code == 200
        finally:
            for sock in slow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST
                sock.close()
        assert server.post("/tokenize", {"content": "x"}).status_code == 200
