"""Reading the body of a request: JSON of bounded size, which must keep coming, and bounded room for all bodies."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from localllm.server.problems import Problem

MOST = 64 << 20  # bytes
MOST_AT_ONCE = 4 * MOST  # of all requests whose answers have not begun
IDLE_SECONDS = 30.0


class Room:
    """How many bytes of bodies there are at once."""

    def __init__(self, most: int = MOST_AT_ONCE) -> None:
        self.most, self.used = most, 0


class Body:
    """What has come of one request's body, until it is released."""

    def __init__(self, room: Room) -> None:
        self._room, self._size, self._data = room, 0, bytearray()

    def add(self, piece: bytes) -> None:
        if self._size + len(piece) > MOST:
            raise _too_large()
        if self._room.used + len(piece) > self._room.most:
            raise Problem(503, f"bodies of requests have {self._room.used} bytes, of at most {self._room.most} at once",
                          code="too_many_requests", headers={"retry-after": "1"})  # fmt: skip
        self._room.used += len(piece)
        self._size += len(piece)
        self._data += piece

    def take(self) -> bytes:
        """All of it, which goes on taking room until it is released."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def release(self) -> None:
        self._room.used -= self._size
        self._size = 0


async def read_body(http: Request, body: Body) -> bytes:
    """Problem 413, 415, 408 or 503. Only application/json is taken: a web page can send others without being asked."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "the Content-Type must be application/json", code="unsupported_media_type")
    if http.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "a Content-Encoding is not supported", code="unsupported_media_type")
    length = http.headers.get("content-length", "0")
    if len(length) > 15 or int(length) > MOST:
        raise _too_large()
    while True:
        try:
            message = await asyncio.wait_for(http.receive(), IDLE_SECONDS)
        except TimeoutError:
            raise Problem(408, f"the body did not come on for {IDLE_SECONDS:.0f} s", code="timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body.add(message.get("body", b""))
        if not message.get("more_body", False):
            return body.take()


def _too_large() -> Problem:
    return Problem(413, f"the body has more than {MOST} bytes", code="body_too_large")
