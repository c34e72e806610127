"""Bytes that are not quite HTTP, connections that do not get on, and heads without end: each is ended, none harms."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.server import protocol
from tests.server.live import Live, read_all, serving

HOST = b"Host: localhost\r\n"
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
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200 + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X-\x01: y\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
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


def test_a_body_in_chunks_and_bits(server: Live) -> None:
    with server.connect() as sock:
        head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        for byte in head + b"8\r\n" + BODY[:8] + b"\r\n8\r\n" + BODY[8:] + b"\r\n0\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert b"tokens" in read_all(sock)


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
