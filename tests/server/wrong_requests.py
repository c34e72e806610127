"""Wrong requests, drawn from the published OpenAPI document: every field at every value of a list that the schema
refuses, as the `jsonschema` package reads it. So the document, the server and a validator must agree."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema

VALUES: list[Any] = [
    True, False, -1, 0, 9, 21, 129, 2**31, 2**53, -(2**53), 2**64, -(2**63) - 1, 10**400, float("inf"),
    0.5, -0.001, 2.5, 1e308, -1e308, "", "x", "1", "\x00", "é" * 1025, "x" * 2000,
    [], [0], [""], ["x"] * 17, [1.5], [-1], [True], [[]], [{}], {}, {"a": 1}, {"0": "x"},
    {"0": 101}, {"include_usage": 1}, {"type": "x"}, {"role": "user"}, [{"role": "user"}],
    [{"role": "x", "content": ""}],
    [{"content": "x"}], [{"role": "user", "content": 1}], [{"role": "user", "content": []}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}],
    [{"role": "user", "content": "x", "extra": 1}], [{"role": "assistant", "tool_calls": 1}], [{"role": "tool"}],
]  # fmt: skip

BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1},
    "/tokenize": {"content": "hi"},
    "/detokenize": {"tokens": [1, 2]},
}

# What OpenAI or others know and this server does not, at values that would change an answer.
UNKNOWN: dict[str, list[Any]] = {
    "store": [True], "service_tier": ["flex", 1], "modalities": [["audio"], ["text", "audio"]],
    "audio": [{"voice": "x"}],
    "prediction": [{"type": "content", "content": "x"}], "verbosity": ["low"],
    "reasoning_effort": ["high"],  # which the tiny model's template does not know
    "web_search_options": [{}], "functions": [[{"name": "f"}]], "function_call": [{"name": "f"}], "best_of": [2, True],
    "echo": [True, 0], "suffix": ["x"], "chat_template": ["{{ x }}"],
    "chat_template_kwargs": [{"messages": 1}, {"a": {}}, 1],
    "guided_json": [{}], "mirostat": [1], "typical_p": [0.5], "temprature": [0.5], "": [1], "messages ": [1],
}  # fmt: skip


def wrong_requests(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, field, body): each body has one wrong field."""
    for path, base in BASES.items():
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        validator = jsonschema.Draft202012Validator(whole)
        assert validator.is_valid(base)
        fields = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
        for field in fields:
            for value in VALUES:
                body = {**copy.deepcopy(base), field: value}
                if not validator.is_valid(body):
                    yield path, field, body
        for field in base:
            if field != "max_tokens":
                yield path, field, {name: value for name, value in base.items() if name != field}
                yield path, field, {**base, field: None}
        for field, values in UNKNOWN.items():
            for value in values:
                yield path, field, {**base, field: value}
