"""response_format: the tiny model says anything at random, and what it answers is judged by jsonschema and re."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from tests.server.live import Live, serving
from tests.tiny_models import CHATML, write_tiny

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "user", "content": "how many are there?"}]


def ask(server: Live, wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"messages": MESSAGES, "response_format": wanted, "temperature": 1, "max_tokens": 200, **more}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_a_schema_holds(server: Live) -> None:
    for seed in range(8):
        choice = ask(server, schema_format(SCHEMA), seed=seed)
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_an_object(server: Live) -> None:
    ended = 0
    for seed in range(6):
        choice = ask(server, {"type": "json_object"}, seed=seed, max_tokens=400)
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["message"]["content"]), dict)
            ended += 1
        else:
            assert choice["message"]["content"].startswith("{")
    assert ended


@pytest.mark.parametrize(
    ("syntax", "grammar", "pattern"),
    [
        ("regex", "[ab]{2,4}!", "[ab]{2,4}!"),
        ("gbnf", 'root ::= "yes" | "no"', "yes|no"),
        ("lark", 'start: "n=" N\nN: /[0-9]{3}/', "n=[0-9]{3}"),
        ("lark", '// c\nstart: "a::=b" // x/', "a::=b"),
    ],
)
def test_grammars(server: Live, syntax: str, grammar: str, pattern: str) -> None:
    choice = ask(server, {"type": "grammar", "syntax": syntax, "grammar": grammar}, seed=1)
    assert re.fullmatch(pattern, choice["message"]["content"]) and choice["finish_reason"] == "stop"


def test_text_is_free(server: Live) -> None:
    free = server.post("/v1/chat/completions", {"messages": MESSAGES, "seed": 1, "max_tokens": 9}).json()
    assert (
        ask(server, {"type": "text"}, seed=1, max_tokens=9, temperature=None)["message"]
        == (free["choices"][0]["message"])
    )


def test_streams_choices_and_completions(server: Live) -> None:
    client = server.openai()
    stream = client.chat.completions.create(
        model="default", messages=MESSAGES, response_format=schema_format(SCHEMA), n=3, seed=5, stream=True
    )
    texts = ["", "", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    body = {"prompt": "x", "max_tokens": 60, "response_format": schema_format(SCHEMA), "seed": 3}
    texts.append(server.post("/v1/completions", body).json()["choices"][0]["text"])
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid
    assert [text for text in texts if not valid(json.loads(text))] == []


def test_held_and_free_answers_in_one_batch_do_not_touch(server: Live) -> None:
    def one(i: int) -> str:
        if i % 2:
            return str(ask(server, schema_format(SCHEMA), seed=i)["message"]["content"])
        body = {"messages": MESSAGES, "seed": i, "max_tokens": 30, "ignore_eos": True}
        return str(server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"])

    alone = [one(i) for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(16))) == alone


def test_the_clients_own_parsing(server: Live) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Answer(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        yes: bool
        of: list[bool] = pydantic.Field(max_length=3)

    reply = server.openai().chat.completions.parse(model="default", messages=MESSAGES, response_format=Answer, seed=2)
    assert isinstance(reply.choices[0].message.parsed, Answer)


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json"}, {}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}},
        {"type": "json_schema", "json_schema": {"name": "x y", "schema": {}}},
        {"type": "grammar", "syntax": "regex", "grammar": "("}, {"type": "grammar", "syntax": "ebnf", "grammar": "x"},
        {"type": "grammar", "syntax": "lark", "grammar": "start: x"}, {"type": "text", "extra": 1},
        {"type": "grammar", "syntax": "gbnf", "grammar": "root ::= foo"}, schema_format({"$ref": "#"}),
        {"type": "grammar", "syntax": "gbnf", "grammar": 'start: "a"'},
        {"type": "grammar", "syntax": "regex", "grammar": "(a{1000}){999}"},
        schema_format({"x-guidance": {"lenient": True}, "not": {}}),
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused_by_name(server: Live, wanted: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.create(
            model="default", messages=MESSAGES, extra_body={"response_format": wanted}
        )
    assert str(caught.value.param).startswith("response_format")


def test_a_form_ends_the_answer_so_ignore_eos_is_refused(server: Live) -> None:
    body = {"messages": MESSAGES, "response_format": {"type": "json_object"}, "ignore_eos": True}
    assert server.post("/v1/chat/completions", body).json()["error"]["param"] == "ignore_eos"


def test_reasoning_ends_before_the_answer_does(tmp_path: Path) -> None:
    """A model whose prompt ends inside its reasoning, and which would rather end than go on."""
    template = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>") + "{# </think> #}"
    write_tiny(tmp_path / "tiny.gguf", context=2048, chat_template=template)
    with serving(tmp_path / "tiny.gguf") as server:
        for more in ({}, {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}):
            bias = {str(token): 100 for token in server.llm.tokenizer.eog_ids}
            choice = ask(server, schema_format(SCHEMA), max_tokens=20, logit_bias=bias, **more)
            assert choice["finish_reason"] == "length" and choice["message"]["reasoning_content"]
