"""Who may ask. Before anything else is looked at: the Host, so that no web page can reach this server under a name of
its own (DNS rebinding); the Origin, so that none can use it from its own address; the key, where one is set.

Decided on the path that is routed, never on the URL's text. Every route needs the key, save /health."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Iterable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localllm.server import protocol
from localllm.server.problems import Problem

CLIENT = "localllm.client"  # in a request's scope: the name of its key, or nothing where there are no keys
BEGUN = "localllm.begun"  # in a request's scope: when its head had come
BLANKS = " \t"
OPEN_PATH = "/health"
MOST_URL = 8192
MOST_HEADERS = 100
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.", "127.0.0.1", "[::1]"})
_LOOPBACK_ORIGIN = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^][:@/,\s]+)(?::\d{0,5})?", re.IGNORECASE)  # with a port, or without


class Guard:
    """An ASGI application around another. keys: any of them opens; without one an Authorization header is ignored.
    hosts: names besides loopback's, in lower case; None allows any, for a server that is meant to be reached under
    names that it cannot know, and has a key. refused is told the path of what is not let in."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        origins: Iterable[str],
        hosts: Iterable[str] | None,
        refused: Callable[[str], None],
    ) -> None:
        self._app = app
        self._keys = [key.strip(BLANKS).encode() for key in keys]
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None else _LOOPBACK_NAMES.union(hosts)
        self._refused = refused
        self._under_way = 0  # requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope[BEGUN] = time.perf_counter()
        headers, origin = _Headers(scope["headers"]), ""
        try:
            origin = self._check_origin(scope["method"], headers)
            _check_head(scope)
            self._check_host(headers)
            if origin and scope["method"] == "OPTIONS":
                await _reply(send, 204, b"", _preflight(origin))
                return
            scope[CLIENT] = self._check_key(scope["path"], headers)
            self._check_room(scope["path"])
        except Problem as problem:
            self._refused(scope["path"])
            extra = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
            if origin:  # the page may read why
                extra += _allowances(origin)
            await _reply(send, problem.status, problem.body, [*extra, (b"content-type", b"application/json")])
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, _allowing(send, origin) if origin else send)
        finally:
            self._under_way -= 1

    def _check_host(self, headers: _Headers) -> None:
        hosts = headers.all(b"host")
        if len(hosts) != 1:
            raise Problem(400, "a request needs exactly one Host header", code="bad_host")
        if self._hosts is None:
            return
        name = _HOST.fullmatch(hosts[0])
        if name is None or name[1].lower() not in self._hosts:
            raise Problem(403, "this server answers only to the names of this machine's loopback: see --allow-host",
                          code="bad_host")  # fmt: skip

    def _check_origin(self, method: str, headers: _Headers) -> str:
        """The origin of the web page that asks; empty when none does.

        Browsers name it wherever something may be changed or the page may read the answer. What they send without it
        is told by Sec-Fetch-Site: pictures and scripts of another site are refused, since a page learns from them
        whether they load. A link that is followed is not: it shows the answer to the user alone, and a GET changes
        nothing here."""
        origins = headers.all(b"origin")
        if not origins:
            follows_link = method == "GET" and headers.all(b"sec-fetch-mode") == ["navigate"]
            if follows_link or headers.all(b"sec-fetch-site") in ([], ["same-origin"], ["none"]):
                return ""
            raise Problem(403, "a web page of another site may not use this server", code="bad_origin")
        origin = origins[0]
        allowed = "*" in self._origins or origin in self._origins or _LOOPBACK_ORIGIN.fullmatch(origin)
        if len(origins) > 1 or not allowed:
            raise Problem(
                403, "web pages of this origin may not use this server: see --allow-origin", code="bad_origin"
            )
        return origin

    def _check_key(self, path: str, headers: _Headers) -> str:
        """Which key it was, where it matters."""
        if not self._keys or path == OPEN_PATH:
            return ""
        given = headers.all(b"authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Every key is compared, so that the time taken tells nothing.
        right = [hmac.compare_digest(known, key.strip(BLANKS).encode("latin-1")) for known in self._keys]
        if scheme.lower() != "bearer" or not any(right):
            raise Problem(
                401,
                "the API key is missing or wrong: send Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return f"key {right.index(True)}"

    def _check_room(self, path: str) -> None:
        if self._under_way >= protocol.CONNECTIONS and path != OPEN_PATH:
            raise Problem(503, f"{self._under_way} requests are being answered, and no more may be",
                          code="too_many_requests", headers={"retry-after": "1"})  # fmt: skip


def _check_head(scope: Scope) -> None:
    """Of a head that came in one piece, which the protocol does not measure."""
    if not scope["raw_path"].startswith(b"/"):  # of another server, perhaps, whatever the Host header says
        raise Problem(400, "the target of a request must be a path", code="bad_target")
    url = len(scope["raw_path"]) + len(scope["query_string"])
    if len(scope["headers"]) > MOST_HEADERS:
        raise Problem(431, f"there are more than {MOST_HEADERS} header fields", code="headers_too_large")
    if url + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > protocol.MOST_HEAD:
        raise Problem(431, f"the head has more than {protocol.MOST_HEAD} bytes", code="headers_too_large")
    if url > MOST_URL:
        raise Problem(414, f"the URL has more than {MOST_URL} characters", code="url_too_long")


class _Headers:
    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self._pairs if key == name]


def _preflight(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        *_allowances(origin),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"*, Authorization, Content-Type"),
        (b"access-control-allow-private-network", b"true"),
        (b"access-control-max-age", b"600"),
    ]


def _allowances(origin: str) -> list[tuple[bytes, bytes]]:
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]


def _allowing(send: Send, origin: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_allowances(origin)]}
        await send(message)

    return sending


async def _reply(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
