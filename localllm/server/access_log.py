"""One line of JSON for each request, for programs: who asked what, how it ended, and how long it took. Never a word of
a prompt, an answer or a key.

Lines are written by a thread of their own, so that a reader who does not read holds up no request: beyond WAITING
lines they are dropped, and the next line that is written is preceded by one that tells how many."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from queue import Full, Queue
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localllm.server.wire import encode

NOTES = "localllm.notes"  # in a request's scope: what its handler adds to the line
WAITING = 1024  # lines
LAST_SECONDS = 1.0  # for what waits when the server ends

_log = logging.getLogger(__name__)


class AccessLog:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, lines: Lines) -> None:
        self._app, self._lines = app, lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, status = time.perf_counter(), 0
        notes: dict[str, Any] = {}

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app({**scope, NOTES: notes}, receive, sending)
        finally:
            client = scope.get("client") or ("", 0)
            self._lines.put({
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "client": f"{client[0]}:{client[1]}",
                "method": scope.get("method", ""), "path": scope.get("path", "")[:200], "status": status or None,
                "ms": round((time.perf_counter() - begun) * 1e3, 1), **notes,
            })  # fmt: skip


class Lines:
    """Objects on their way to a file descriptor, as JSON in UTF-8."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: Queue[dict[str, Any] | None] = Queue(WAITING)  # None is the end
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="localllm-access-log", daemon=True)
        self._thread.start()

    def put(self, line: dict[str, Any]) -> None:
        """For one thread, the event loop's. Never waits."""
        try:
            if self._dropped:
                self._queue.put_nowait({"dropped": self._dropped})
                self._dropped = 0
            self._queue.put_nowait(line)
        except Full:
            self._dropped += 1

    def close(self) -> None:
        """Waits a moment for what has not been written."""
        with suppress(Full):
            if self._dropped:
                self._queue.put({"dropped": self._dropped}, timeout=LAST_SECONDS)
            self._queue.put(None, timeout=LAST_SECONDS)
            self._thread.join(LAST_SECONDS)

    def _write_all(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                left = encode(line) + b"\n"
                while left:
                    left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            _log.warning("the access log has ended: standard output cannot be written (%s)", error.strerror)
            while self._queue.get() is not None:  # as if they were written
                pass
