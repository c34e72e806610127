"""Who may ask: hosts, origins and keys, over raw sockets, so that nothing tidies the headers on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from localllm.server.app import make_app
from localllm.server.guard import Guard
from tests.server.live import Live, serving


def ask(server: Live, *headers: str, method: str = "GET", path: str = "/v1/models") -> tuple[int, bytes]:
    """(status, all of the answer)."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "Connection: close", "", ""])
    answer = server.raw(head.encode("latin-1"))
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "localhost:8080", "127.0.0.1:1", "LOCALHOST:80",
                                  "localhost.", "localhost:", "localhost.:80"])
def test_hosts_of_this_machine(server: Live, host: str) -> None:
    assert ask(server, f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.com", "localhost.evil.com", "evil.com:8080", "127.0.0.1.", "127.0.0.1.evil.com", "0x7f.1", "2130706433",
        "127.1", "user@localhost", "localhost@evil.com", "localhost:8080:1", "localhost:x", "[::1", "[::1%lo]", "::1",
        "0.0.0.0", "192.168.0.1", "", " ", "localhost,evil.com", "localhost evil.com", "127.0.0.2x", "localhost:123456",
    ],
)  # fmt: skip
def test_other_hosts(server: Live, host: str) -> None:
    steps = server.llm.stats.steps
    assert ask(server, f"Host: {host}")[0] in (400, 403)
    assert server.llm.stats.steps == steps


def test_one_host_exactly(server: Live) -> None:
    assert ask(server)[0] == 400
    assert ask(server, "Host: localhost", "Host: localhost")[0] == 400
    assert ask(server, "Host: localhost", "Host: evil.com")[0] == 400
    assert ask(server, "Host: evil.com", path="http://localhost/v1/models")[0] in (400, 403)


@pytest.mark.parametrize("target", ["http://evil.com/v1/models", "https://evil.com", "http://localhost@evil.com/health"])
def test_targets_of_other_servers(server: Live, target: str) -> None:
    assert ask(server, "Host: localhost", path=target)[0] in (400, 403)


def test_the_address_that_is_listened_on_and_names_that_are_allowed(tiny: Path) -> None:
    with serving(tiny, host="127.0.0.2", allow_host=("llm.example",)) as live:
        assert httpx.get(live.url + "/v1/models").status_code == 200
        for host, expected in {"127.0.0.2": 200, "LLM.example:443": 200, "llm.example.evil.com": 403, "127.0.0.3": 403,
                               "localhost": 200}.items():  # fmt: skip
            assert httpx.get(live.url + "/v1/models", headers={"host": host}).status_code == expected, host


@pytest.mark.parametrize(
    "origin", ["http://localhost", "http://localhost:3000", "https://127.0.0.1:1", "http://[::1]:3"]
)
def test_pages_of_this_machine_may_ask(server: Live, origin: str) -> None:
    status, answer = ask(server, "Host: localhost", f"Origin: {origin}")
    assert status == 200 and f"access-control-allow-origin: {origin}".encode() in answer.lower()


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.com", "http://localhost.evil.com", "http://evil.com/localhost", "http://localhost:x", "",
     "file://", "http://127.0.0.1.evil.com", "https://localhost@evil.com", "app://localhost", "http://192.168.0.1"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_pages_may_not(server: Live, origin: str, method: str) -> None:
    status, answer = ask(server, "Host: localhost", f"Origin: {origin}", "Content-Length: 0", method=method)
    assert status == 403 and b"access-control" not in answer.lower()


def test_pages_that_hide_their_origin(server: Live) -> None:
    assert ask(server, "Host: localhost", "Sec-Fetch-Site: cross-site")[0] == 403
    assert ask(server, "Host: localhost", "Sec-Fetch-Site: none")[0] == 200
    cross = ("Host: localhost", "Sec-Fetch-Site: cross-site")
    assert ask(server, *cross, "Sec-Fetch-Mode: navigate", path="/health")[0] == 200  # a link that is followed
    assert ask(server, *cross, "Sec-Fetch-Mode: no-cors", path="/health")[0] == 403  # a picture, or a script
    assert ask(server, *cross, "Sec-Fetch-Mode: navigate", "Content-Length: 0", method="POST")[0] == 403
    assert ask(server, "Host: localhost", "Origin: http://localhost", "Origin: http://evil.com")[0] == 403


def test_a_page_may_read_that_its_head_is_too_long(server: Live) -> None:
    status, answer = ask(server, "Host: localhost", "Origin: http://localhost:3000", path="/" + "x" * 9000)
    assert status == 414 and b"access-control-allow-origin: http://localhost:3000" in answer.lower()


def test_preflight(server: Live) -> None:
    status, answer = ask(server, "Host: localhost", "Origin: http://localhost:3000", method="OPTIONS",
                         path="/v1/chat/completions")  # fmt: skip
    assert status == 204 and b"access-control-allow-headers" in answer.lower()


def test_a_header_of_a_key_is_ignored_where_there_is_none(server: Live) -> None:
    assert ask(server, "Host: localhost", "Authorization: Bearer whatever")[0] == 200


@pytest.fixture(scope="module")
def locked(tiny: Path) -> Iterator[Live]:
    with serving(tiny, api_key=("first key", "second"), allow_origin=("https://app.example",)) as live:
        yield live


class TestKeys:
    @pytest.mark.parametrize("given", ["Bearer first key", "bearer second", "Bearer  second ", "Bearer \tsecond\t"])
    def test_right(self, locked: Live, given: str) -> None:
        assert ask(locked, "Host: localhost", f"Authorization: {given}")[0] == 200

    @pytest.mark.parametrize(
        "given", ["Bearer", "Bearer ", "Bearer firs", "Bearer first key2", "second", "Basic second", "Bearer\tsecond",
                  "Bearer s\xe9cond", "Bearer second\xa0", "Bearer \x85second"])  # fmt: skip
    def test_wrong(self, locked: Live, given: str) -> None:
        status, answer = ask(locked, "Host: localhost", f"Authorization: {given}")
        assert status == 401 and b"www-authenticate: bearer" in answer.lower()

    def test_two_keys_at_once(self, locked: Live) -> None:
        right = "Authorization: Bearer second"
        assert ask(locked, "Host: localhost", right, right)[0] == 401

    def test_every_route_but_health(self, locked: Live) -> None:
        guard = make_app(locked.service)
        assert isinstance(guard, Guard)
        routes = [(route.path, method) for route in guard._app.routes for method in route.methods]
        assert len(routes) >= 9
        for path, method in routes:
            expected = 200 if path == "/health" else 401
            assert httpx.request(method, locked.url + path).status_code == expected, path

    @pytest.mark.parametrize("path", ["/health/", "//health", "/health/../v1/models", "/%2e/v1/models", "/HEALTH",
                                      "/v1%2fmodels", "/health%2f..%2fv1%2fmodels", "/health;/v1/models"])  # fmt: skip
    def test_tricks_with_paths(self, locked: Live, path: str) -> None:
        assert ask(locked, "Host: localhost", path=path)[0] == 401

    def test_an_origin_that_is_allowed(self, locked: Live) -> None:
        key = "Authorization: Bearer second"
        assert ask(locked, "Host: localhost", "Origin: https://app.example", key)[0] == 200
        assert ask(locked, "Host: localhost", "Origin: https://app.example.org", key)[0] == 403

    def test_an_origin_that_is_allowed_may_read_refusals(self, locked: Live) -> None:
        """Else a page cannot tell a wrong key from a server that is not there."""
        for refused, headers in [(401, ["Host: localhost"]), (403, ["Host: evil.com"]), (400, ["Host: a", "Host: b"])]:
            status, answer = ask(locked, "Origin: https://app.example", *headers)
            assert status == refused
            assert b"access-control-allow-origin: https://app.example\r\n" in answer.lower()
