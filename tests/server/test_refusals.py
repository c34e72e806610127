"""Every wrong request is refused with an error that names the field, and leaves no trace in what comes after."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import httpx
import pytest

from tests.server.live import Live
from tests.server.wrong_requests import wrong_requests

CONTROL = {"messages": [{"role": "user", "content": "the control"}], "max_tokens": 12, "seed": 5, "logprobs": True}
TELLS_TOO_MUCH = re.compile(r"/\w+/|0x[0-9a-f]{4}|Error\b|Traceback|<.* object")


def check_error(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, (reply.status_code, reply.text[:300])
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert not TELLS_TOO_MUCH.search(error["message"].replace("/v1/", "")), error["message"]
    return dict(error)


def test_every_field_at_every_wrong_value(server: Live) -> None:
    control = server.post("/v1/chat/completions", CONTROL).json()["choices"]
    steps = server.llm.stats.steps
    count, problems = 0, []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path, field, body in wrong_requests(client.get("/openapi.json").json()):
            text = json.dumps(body).replace("Infinity", "1e999")
            reply = client.post(path, content=text, headers={"content-type": "application/json"})
            count += 1
            param = reply.json().get("error", {}).get("param")
            named = param is not None and (param == field or re.match(re.escape(field) + r"[.\[]", param))
            if reply.status_code not in (400, 404) or not named:
                problems.append(f"{path} {field}={str(body.get(field))[:60]}: {reply.status_code} {reply.text[:200]}")
            else:
                check_error(reply, reply.status_code)
    assert not problems, "\n".join(problems[:20])
    assert count >= 1500
    assert server.llm.stats.steps == steps, "a wrong request reached the engine"
    assert server.post("/v1/chat/completions", CONTROL).json()["choices"] == control


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"x"', b"{", b'{"messages": NaN}', b'{"messages": [], "messages": []}', b"\xff\xfe{\x00",
        b'{"n": 1e999}', b'{"seed": 99999999999999999999}', b'{"user": "\\ud800"}', b'{"a":' * 3000,
        b"[" * 100_000, b'{"a": Infinity}', b'{"a": 01}', b'{"a": "\x01"}', b"{} {}", b'{"seed": ' + b"9" * 4000 + b"}",
        b"\xef\xbb\xbf{}", b'{"a": "' + b'\\"' * 200 + b"[" * 200,
    ],
)  # fmt: skip
def test_bodies_that_are_no_object_of_json(server: Live, body: bytes) -> None:
    reply = httpx.post(
        server.url + "/v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=60
    )
    check_error(reply)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ('"seed": 18446744073709551616', "seed"),
        ('"seed": -9223372036854775809', "seed"),
        ('"seed": 1' + "0" * 5000, "seed"),
        ('"temperature": 1e999', "temperature"),
        ('"logit_bias": {"1": -1e999}', "logit_bias.1"),
        ('"metadata": {"a": [0, {"b": 1E0400}]}', "metadata.a[1].b"),
        ('"metadata": {"a": "\\ud83d"}', "metadata.a"),
        ('"metadata": {"\\ud83d": 1}', "metadata.?"),
    ],
)
def test_what_json_holds_and_we_do_not_is_named(server: Live, fields: str, param: str) -> None:
    content = '{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, ' + fields + "}"
    headers = {"content-type": "application/json"}
    assert check_error(httpx.post(server.url + "/v1/chat/completions", content=content, headers=headers))["param"] == (
        param
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"stop": ["x"] * 17}, "stop: expected a list of at most 16 entries, found a list of 17 entries"),
        ({"temperature": 3}, "temperature: expected a number of at most 2, found 3"),
        ({"n": "1"}, 'n: expected an integer, found "1"'),
        ({"stop": ["x", ""]}, 'stop[1]: expected a text of at least 1 character, found ""'),
        ({"tool_choice": "x"}, 'tool_choice: expected none, auto or required, found "x"'),
        ({"response_format": {"type": "x"}},
         'response_format.type: expected text, json_object, json_schema or grammar, found "x"'),
        ({"messages": [{"role": "x"}]},
         'messages[0].role: expected system, developer, user, assistant or tool, found "x"'),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         'messages[0].content[0].type: the model reads text only, found a part of type "image_url"'),
        ({"messages": []}, "messages: expected a list of at least 1 entry, found a list of 0 entries"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: this field is missing"),
        ({"messages": [{"role": "user", "content": "x", "best_of": 1}]},
         "messages[0].best_of: this is not a field that this server knows"),
        ({"store": True}, "store: expected false, all that this server can do"),
    ],
)  # fmt: skip
def test_plain_words(server: Live, body: dict[str, Any], sentence: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], **body}
    assert check_error(server.post("/v1/chat/completions", body))["message"] == sentence


def test_neutral_fields_are_those_of_their_request(server: Live) -> None:
    chat, text = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}, {"prompt": "hi", "max_tokens": 1}
    for path, body, field, value in (
        ("/tokenize", {"content": "a"}, "store", False),
        ("/v1/completions", text, "modalities", ["text"]),
        ("/v1/chat/completions", chat, "best_of", 1),
        ("/v1/chat/completions", chat, "tool_calls", []),
    ):
        assert check_error(server.post(path, body | {field: value}))["param"] == field
    assert server.post("/v1/completions", text | {"best_of": 1, "echo": False, "suffix": ""}).status_code == 200


def test_strings_may_hold_brackets(server: Live) -> None:
    body = {"content": '[{"' * 500 + "\\"}
    assert server.post("/tokenize", body).json()["tokens"] == server.llm.tokenize(body["content"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
    ],
)
def test_kinds_of_bodies_that_are_not_read(server: Live, headers: dict[str, str], status: int) -> None:
    check_error(httpx.post(server.url + "/tokenize", content=b'{"content": "x"}', headers=headers), status)


def test_charset_does_not_matter(server: Live) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert httpx.post(server.url + "/tokenize", content=b'{"content": "x"}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    "extra",
    [
        {"top_logprobs": 2},
        {"max_completion_tokens": 3},
        {"logit_bias": {"320": 1}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"05": 1}},
        {"logit_bias": {"٣": 1}},
        {"stop": ["a", ""]},
    ],
)
def test_what_no_single_field_tells(server: Live, extra: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, **extra}
    assert str(check_error(server.post("/v1/chat/completions", body))["param"]).startswith(next(iter(extra)))


@pytest.mark.parametrize("prompt", [[], [[]], ["a", 1], [1, "a"], [[1], "a"], [1, 320], [-1], [1.5], [None], [True],
                                    [[1]] * 129, "", {"a": 1}])  # fmt: skip
def test_prompts_that_are_none(server: Live, prompt: Any) -> None:
    assert check_error(server.post("/v1/completions", {"prompt": prompt}))["param"] == "prompt"


def test_token_ids_out_of_the_vocabulary(server: Live) -> None:
    assert check_error(server.post("/detokenize", {"tokens": [1, 320]}))["param"] == "tokens"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/V1/chat/completions", 404),
        ("DELETE", "/v1/models/tiny", 405),
        ("GET", "/v1/models/none", 404),
        ("GET", "/docs", 404),
    ],
)
def test_routes_that_are_none(server: Live, method: str, path: str, status: int) -> None:
    error = httpx.request(method, server.url + path)
    assert error.status_code == status and error.json()["error"]["message"]


def test_a_conversation_the_template_refuses(server: Live) -> None:
    """A template's own sentence is told; the tiny model's refuses nothing, so a limit of the sandbox must do."""
    reply = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 5_000_000}]})
    assert check_error(reply)["param"] == "messages"


def test_mutants_of_good_bodies(server: Live) -> None:
    """Bytes changed, cut, doubled and swapped: an answer or a refusal, never a failure of ours."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    full = {"messages": CONTROL["messages"], "max_tokens": 1, "n": 2, "stop": ["a"], "logit_bias": {"1": 2},
            "response_format": {"type": "json_object"}, "stream": True}  # fmt: skip
    good = [json.dumps(body).encode() for body in (CONTROL, full)]
    statuses = set()
    with httpx.Client(base_url=server.url, timeout=60, headers={"content-type": "application/json"}) as client:
        for _ in range(1000):
            body = bytearray(rng.choice(good))
            for _ in range(rng.randrange(1, 4)):
                at, size = rng.randrange(len(body)), rng.randrange(1, 9)
                kind = rng.randrange(4)
                if kind == 0:
                    body[at] = rng.randrange(256)
                elif kind == 1:
                    del body[at : at + size]
                elif kind == 2:
                    body[at:at] = rng.choice([b"[", b"{", b"null", b"-", b"9" * 9, b'"', b"\\u", body[at : at + size]])
                else:
                    body[at : at + size] = body[at : at + size][::-1]
                body = body or bytearray(b" ")
            reply = client.post("/v1/chat/completions", content=bytes(body))
            statuses.add(reply.status_code)
            assert reply.status_code in (200, 400, 404), f"seed {seed}: {bytes(body)!r}: {reply.text}"
    assert statuses >= {200, 400}
    server.wait_until_idle()
