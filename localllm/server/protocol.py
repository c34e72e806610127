"""Connections that waste no time: uvicorn's protocol with the limits that it lacks.

A connection is closed that has not sent the whole head of a request in HEAD_SECONDS, sends a head of more than
MOST_HEAD bytes, or does not take what is written to it for STUCK_SECONDS."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
STUCK_SECONDS = 30.0
MOST_HEAD = 32 << 10


class Bounded(asyncio.Protocol):
    """Mixed into a protocol class of uvicorn."""

    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._head = 0  # bytes of a head that is not complete
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        idle = before is None or before.response_complete
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()
        elif idle:
            self._head += len(data)
            self._expect_head()
            if self._head > MOST_HEAD:
                self._refuse_head()

    def connection_lost(self, error: Exception | None) -> None:
        self._head_came()
        self._taken()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self._stuck or self.loop.call_later(STUCK_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

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

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()


class Protocol(Bounded, H11Protocol):
    pass


def protocol_class() -> type[asyncio.Protocol]:
    """On httptools where the extra `fast` is installed, else on h11."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return Protocol
    return type("FastProtocol", (Bounded, HttpToolsProtocol), {})
