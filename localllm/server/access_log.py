"""One line of JSON for each request, for programs: who asked what, how it ended, and how long it took. Never a word of
a prompt, an answer or a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localllm.server.wire import encode

NOTES = "localllm.notes"  # in a request's scope: what its handler adds to the line


class AccessLog:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, write: Callable[[str], object]) -> None:
        self._app, self._write = app, write

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
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "client": f"{client[0]}:{client[1]}",
                "method": scope.get("method", ""), "path": scope.get("path", "")[:200], "status": status or None,
                "ms": round((time.perf_counter() - begun) * 1e3, 1), **notes,
            }  # fmt: skip
            self._write(encode(line).decode("utf-8", "replace"))
