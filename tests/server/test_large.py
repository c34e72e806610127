"""Large bodies and large replies: refused by what they would cost, or handled while others' streams go on."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localllm.server import strict_json
from localllm.server.problems import Problem
from tests.server.live import Live

JSON = {"content-type": "application/json"}
TEXTS = st.text(alphabet='ab"\\{[,]}\n\u20ac', max_size=6)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def marks(value: Any) -> int:
    """Brackets that open and commas between."""
    if not isinstance(value, list | dict):
        return 0
    items = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(items) - 1) + sum(map(marks, items))


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans(), st.integers(1, 9))
def test_values_and_depth_are_counted_whatever_texts_hold(value: dict[str, Any], ascii_only: bool, piece: int) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "PIECE", piece)
        for most_marks, most_depth in [(0, 0), (-1, 0), (0, -1)]:
            patch.setattr(strict_json, "VALUES", 1 + marks(value) + most_marks)
            patch.setattr(strict_json, "DEPTH", depth(value) + most_depth)
            if most_marks == most_depth == 0:
                assert strict_json.parse(body) == value
            else:
                with pytest.raises(Problem, match="more than" if most_marks else "nested deeper"):
                    strict_json.parse(body)


def test_half_a_million_values_are_taken() -> None:
    tokens = [1] * (strict_json.VALUES - 2)
    assert strict_json.parse(json.dumps({"tokens": tokens}).encode()) == {"tokens": tokens}
    with pytest.raises(Problem, match="values"):
        strict_json.parse(json.dumps({"tokens": [1, *tokens]}).encode())


def test_a_name_twice_among_many_is_found_at_once() -> None:
    body = "{" + ",".join(f'"{i}":1' for i in range(200_000)) + ',"199999":1}'
    begun = time.monotonic()
    with pytest.raises(Problem, match="199999 stands twice"):
        strict_json.parse(body.encode())
    assert time.monotonic() - begun < 10


@contextmanager
def stream_beside(server: Live) -> Iterator[list[float]]:
    """Another client's stream; the times at which its events came."""
    times: list[float] = []
    over = threading.Event()

    def read() -> None:
        body = {"prompt": "once", "max_tokens": 400, "ignore_eos": True, "stream": True}
        while not over.is_set():
            with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as reply:
                for line in reply.iter_lines():
                    times.append(time.monotonic())
                    if over.is_set() or not line:
                        continue

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while len(times) < 20:
            time.sleep(0.01)
        yield times
    finally:
        over.set()
        reader.join(60)


def longest_gap(times: list[float], begun: float, ended: float) -> float:
    inside = [begun, *[time for time in times if begun < time < ended], ended]
    return max(after - before for before, after in itertools.pairwise(inside))


def test_many_empty_values_hold_up_no_stream(server: Live) -> None:
    body = b'{"messages":[' + b"[]," * 20_000_000 + b"1]}"
    with stream_beside(server) as times:
        begun = time.monotonic()
        refused = httpx.post(server.url + "/v1/chat/completions", content=body, headers=JSON, timeout=60)
        ended = time.monotonic()
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "body_too_large"
        assert longest_gap(times, begun, ended) < 0.7


def test_a_large_reply_holds_up_no_stream_and_is_whole(server: Live) -> None:
    body = {"prompt": [f"{i} x" for i in range(16)], "n": 8, "max_tokens": 150, "logprobs": 20, "ignore_eos": True,
            "seed": 3}  # fmt: skip
    with stream_beside(server) as times:
        begun = time.monotonic()
        reply = server.post("/v1/completions", body)
        ended = time.monotonic()
        gap = longest_gap(times, begun, ended)
    choices = reply.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(128))
    assert reply.json()["usage"]["completion_tokens"] == 128 * 150
    assert all(len(choice["logprobs"]["tokens"]) == 150 for choice in choices)
    alone = server.post("/v1/completions", body | {"prompt": "5 x", "n": 1}).json()["choices"][0]
    assert alone == choices[40] | {"index": 0}
    assert gap < 0.6


def test_a_number_across_pieces_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "PIECE", 8)
    for blanks in range(40):
        body = b" " * blanks + b'{"a": 99999999999999999999}'
        with pytest.raises(Problem, match="too large"):
            strict_json.check(strict_json.parse(body), body)
