"""One request and its answer: the job is begun, told at once or as it is made, and ended when the client has left.

While the answer is made somebody watches the connection, whether anything is being sent or not: a client that has left
frees what its request holds within one step of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.types import Receive, Scope, Send

from localllm.server import wire
from localllm.server.access_log import NOTES
from localllm.server.job import Job, Piece
from localllm.server.preparation import wait_for_leaving
from localllm.server.service import Service

JSON = [(b"content-type", b"application/json")]
INLINE = 256  # tokens of a reply that is encoded in the event loop
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
          (b"x-accel-buffering", b"no")]  # fmt: skip


class Words(Protocol):
    """How the answers of a kind of request are told."""

    def events(self, pieces: Sequence[Piece]) -> bytes: ...

    def last(self, job: Job) -> bytes: ...

    def whole(self, job: Job, pieces: Sequence[Piece]) -> list[bytes]: ...


class Exchange:
    """An ASGI response."""

    def __init__(self, service: Service, begin: Callable[[], Job], words: Words, stream: bool) -> None:
        self._service, self._words, self._stream = service, words, stream
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = self._begin()
        self._service.begun(job)
        watcher = asyncio.create_task(_watch(receive, job))
        try:
            if self._stream:
                await self._tell_as_made(job, send)
            else:
                await self._tell_whole(job, send)
        finally:
            watcher.cancel()
            self._service.done(job)
            scope.get(NOTES, {}).update(_notes(job))
            job.close()

    async def _tell_whole(self, job: Job, send: Send) -> None:
        pieces: list[Piece] = []
        try:
            while more := await job.next():
                pieces += more
        except Exception as error:
            problem = self._service.problem(error)
            await _send_whole(send, problem.status, [problem.body])
            return
        if job.closed:
            return
        if len(pieces) < INLINE:
            body = [b"".join(self._words.whole(job, pieces))]
        else:
            body = await self._service.lanes.replies.run(job.client, self._words.whole, job, pieces)
        await _send_whole(send, 200, body)

    async def _tell_as_made(self, job: Job, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        try:
            while pieces := await job.next():
                await send({"type": "http.response.body", "body": self._words.events(pieces), "more_body": True})
            last = self._words.last(job)
        except Exception as error:
            last = wire.event(self._service.problem(error).object) + wire.DONE
        if not job.closed:
            await send({"type": "http.response.body", "body": last})


def _notes(job: Job) -> dict[str, object]:
    spent = wire.usage(job)
    return {
        "end": job.end,
        "prompt_tokens": spent.prompt_tokens,
        "cached_tokens": spent.prompt_tokens_details.cached_tokens,
        "generated_tokens": spent.completion_tokens,
    }


async def _watch(receive: Receive, job: Job) -> None:
    """Ends the job when the client leaves."""
    await wait_for_leaving(receive)
    job.close()


async def _send_whole(send: Send, status: int, body: Sequence[bytes]) -> None:
    headers = [*JSON, (b"content-length", str(sum(map(len, body))).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in body[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": body[-1]})
