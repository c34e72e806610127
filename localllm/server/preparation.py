"""What is done for a request before its answer begins: its body is read, checked, rendered and encoded.

It ends early when the client leaves, since nobody would read the answer, and when the server ends all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive

from localllm.server.body import Body, read_body
from localllm.server.service import Service

Handler = Callable[[Request, bytes], Awaitable[ASGIApp]]


def prepared(service: Service, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that reads a body and hands it on."""

    async def endpoint(http: Request) -> Response:
        preparation = Preparation(http, handler, Body(service.room))
        service.preparations.add(preparation)
        try:
            return await preparation.run()  # type: ignore[return-value]  # any ASGI application will do
        finally:
            service.preparations.discard(preparation)

    return endpoint


async def wait_for_leaving(receive: Receive) -> None:
    """Returns when the client has left. For a request whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Preparation:
    def __init__(self, http: Request, handler: Handler, body: Body) -> None:
        self._http, self._handler, self._body = http, handler, body
        self._work: asyncio.Task[ASGIApp] | None = None
        self._error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Ends it with this error, unless it has ended."""
        self._error = self._error or error
        if self._work is not None:
            self._work.cancel()

    async def run(self) -> ASGIApp:
        """What the handler gives, or the error that came first."""
        self._work = asyncio.create_task(self._prepare())
        try:
            return await self._work
        except asyncio.CancelledError:
            if self._error is None:  # this task was cancelled, and with it the work
                raise
            raise self._error from None
        finally:
            self._body.release()

    async def _prepare(self) -> ASGIApp:
        body = await read_body(self._http, self._body)
        watcher = asyncio.create_task(self._watch())
        try:
            return await self._handler(self._http, body)
        finally:
            watcher.cancel()

    async def _watch(self) -> None:
        await wait_for_leaving(self._http.receive)
        self.fail(ClientDisconnect())
