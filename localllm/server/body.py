"""Reading the body of a request: JSON of bounded size, which must keep coming."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from localllm.server.problems import Problem

MOST = 64 << 20  # bytes
IDLE_SECONDS = 30.0


async def read_body(http: Request) -> bytes:
    """Problem 413, 415 or 408. Only application/json is taken: a web page can send other types without being asked."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "the Content-Type must be application/json", code="unsupported_media_type")
    if http.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "a Content-Encoding is not supported", code="unsupported_media_type")
    length = http.headers.get("content-length", "0")
    if len(length) > 15 or int(length) > MOST:
        raise _too_large()
    body = bytearray()
    while True:
        try:
            message = await asyncio.wait_for(http.receive(), IDLE_SECONDS)
        except TimeoutError:
            raise Problem(408, f"the body did not come on for {IDLE_SECONDS:.0f} s", code="timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > MOST:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def _too_large() -> Problem:
    return Problem(413, f"the body has more than {MOST} bytes", code="body_too_large")
