"""Connections that waste no time and no room: uvicorn's protocol with the limits that it lacks.

A connection is closed that has not sent the whole head of a request in HEAD_SECONDS, sends a head of more than
MOST_HEAD bytes, does not take what is written to it for STUCK_SECONDS, or sends more than MOST_AHEAD bytes of other
requests before it has its answer. So much is read meanwhile, since only who reads notices that a client has left.

Beyond CONNECTIONS and some SPARE ones, the one that has been without a request for longest is closed for a new one;
CONNECTIONS is also the number of requests at once (guard.py), so that there always is such a one."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from localllm.server.problems import Problem

HEAD_SECONDS = 10.0
STUCK_SECONDS = 30.0
MOST_HEAD = 32 << 10
MOST_AHEAD = 64 << 10
CONNECTIONS = 512
SPARE = 64


class Bounded(asyncio.Protocol):
    """Mixed into a protocol class of uvicorn."""

    connections: Any  # a set of all that the server has
    cycle: Any  # the latest request and its answer
    flow: Any
    loop: asyncio.AbstractEventLoop
    pipeline: Any = ()  # requests that wait for the answer before theirs, where the parser has not kept them back
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._head = 0  # bytes of a head that is not complete
        self._ahead = 0  # bytes that came after a whole request, before its answer was complete
        self._idle_since = self.loop.time()
        super().connection_made(transport)
        # asyncio does this only for sockets that name their protocol. Else an answer's second packet, its body, waits
        # until the client has acknowledged the first, which takes it 40 ms.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > CONNECTIONS + SPARE:
            self._make_room()
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._answering and self._is_too_far_ahead(data):
            return
        before, idle = self.cycle, self.idle
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()
        elif idle:
            self._head += len(data)
            self._expect_head()
            if self._head > MOST_HEAD:
                self._refuse(Problem(431, f"the head has more than {MOST_HEAD} bytes", code="headers_too_large"))
        if self._answering:
            self.flow.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._head_came()
        self._taken()
        super().connection_lost(error)

    def on_response_complete(self) -> None:
        self._ahead, self._idle_since = 0, self.loop.time()
        super().on_response_complete()  # type: ignore[misc]

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self._stuck or self.loop.call_later(STUCK_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

    def send_400_response(self, message: str) -> None:
        self._refuse(Problem(400, "this is not a request of HTTP/1.1", code="bad_request"))

    def _unsupported_upgrade_warning(self) -> None:
        """The request is answered as if it had not asked for another protocol, and nobody need be told."""

    @property
    def idle(self) -> bool:
        """No request has come that is not answered."""
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

    @property
    def _answering(self) -> bool:
        """There is a whole request, and its answer is not complete."""
        return not self.idle and (bool(self.pipeline) or not self.cycle.more_body)

    def _is_too_far_ahead(self, data: bytes) -> bool:
        self._ahead += len(data)
        if self._ahead > MOST_AHEAD:
            self.transport.abort()
        return self._ahead > MOST_AHEAD

    def _make_room(self) -> None:
        others = [one for one in self.connections if one is not self and one.idle and not one.transport.is_closing()]
        if others:
            min(others, key=lambda one: one._idle_since).transport.close()
        else:
            self._refuse(Problem(503, "there are too many connections", code="too_many_connections",
                                 headers={"retry-after": "1"}))  # fmt: skip

    def _expect_head(self) -> None:
        self._late = self._late or self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_came(self) -> None:
        self._head = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _taken(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _refuse(self, problem: Problem) -> None:
        """Ends the connection with an answer, unless that would fall into another one."""
        if self.idle and not self.transport.is_closing():
            headers = {"content-type": "application/json", "content-length": str(len(problem.body)),
                       "connection": "close", **problem.headers}  # fmt: skip
            lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
                     *[f"{name}: {value}" for name, value in headers.items()]]  # fmt: skip
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + problem.body)
        self.transport.close()


class Protocol(Bounded, H11Protocol):
    """On h11, which keeps what comes ahead to itself."""


class Pipelined(Bounded):
    """For httptools, which reads requests that came ahead at once: uvicorn tells the last of them alone that the client
    has left, but it is the first that is being answered."""

    url: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._cycles: list[Any] = []  # those not answered
        super().connection_made(transport)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # type: ignore[misc]
        if not self.url.startswith(b"/"):
            self.cycle.scope["raw_path"] = self.url  # as h11 gives it, and not the path alone
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        self._cycles.append(self.cycle)

    def connection_lost(self, error: Exception | None) -> None:
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(error)


def protocol_class() -> type[asyncio.Protocol]:
    """On httptools where the extra `fast` is installed, else on h11."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return Protocol
    return type("FastProtocol", (Pipelined, HttpToolsProtocol), {})
