"""tools and tool_choice through the openai client. The tiny model says anything; constraints make it call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from localllm.engine.sequence import Mask
from localllm.llm import Request
from localllm.params import SamplingParams
from tests.server.live import Live, force, serving
from tests.tiny_models import CHATML, write_tiny

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}},
    {"type": "function", "function": {"name": "stop"}},
]  # fmt: skip
MESSAGES: list[Any] = [{"role": "user", "content": "what is the weather?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With room for the description of functions, in tokens of a byte."""
    file = tmp_path_factory.mktemp("tools") / "tiny.gguf"
    write_tiny(file, context=2048)
    with serving(file) as live:
        yield live


NAMED: Any = {"type": "function", "function": {"name": "weather"}}


def test_a_required_call_fits_its_schema(server: Live) -> None:
    called = set()
    for seed in range(12):
        reply = server.openai().chat.completions.create(
            model="default", messages=MESSAGES, tools=TOOLS[:1], tool_choice="required", seed=seed, max_tokens=200
        )
        (call,) = reply.choices[0].message.tool_calls or []
        assert reply.choices[0].finish_reason == "tool_calls" and not reply.choices[0].message.content
        assert call.type == "function" and call.id
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
        called.add(call.function.name)
    assert called == {"weather"}


@pytest.mark.parametrize("seed", range(4))
def test_a_named_function_streamed(server: Live, seed: int) -> None:
    chunks = list(
        server.openai().chat.completions.create(
            model="default", messages=MESSAGES, tools=TOOLS, tool_choice=NAMED, seed=seed, stream=True, max_tokens=200
        )
    )
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert len(calls) == 1 and calls[0].index == 0 and calls[0].function.name == "weather"
    jsonschema.validate(json.loads(calls[0].function.arguments), PARAMETERS)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("parallel", [True, False])
def test_calls_are_found_where_the_choice_is_the_models(
    server: Live, monkeypatch: pytest.MonkeyPatch, parallel: bool
) -> None:
    text = '[{"name": "stop", "arguments": {}}, {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}]'
    force(server, monkeypatch, text)
    arguments: Any = {"model": "default", "messages": MESSAGES, "parallel_tool_calls": parallel, "max_tokens": 300}
    client = server.openai()
    message = client.chat.completions.create(**arguments, tools=TOOLS).choices[0].message
    names = [call.function.name for call in message.tool_calls]
    assert names == (["stop", "weather"] if parallel else ["stop"]) and message.content is None
    none = client.chat.completions.create(**arguments, tools=TOOLS, tool_choice="none").choices[0]
    assert none.message.content == text and not none.message.tool_calls and none.finish_reason == "stop"
    others = [{"type": "function", "function": {"name": "other"}}]
    assert client.chat.completions.create(**arguments, tools=others).choices[0].message.content == text


@pytest.mark.parametrize("form", [PARAMETERS, None], ids=["json_schema", "json_object"])
def test_an_answer_of_a_format_or_a_call(server: Live, form: Any) -> None:
    """What a random model draws is either, and nothing else."""
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": form}} if form else {"type": "json_object"}
    kinds = set()
    for seed in range(30):
        arguments: Any = {"model": "default", "messages": MESSAGES, "tools": TOOLS, "response_format": named}
        arguments |= {"temperature": 2, "extra_body": {"top_k": 0, "min_p": 0}, "top_p": 1}  # all that is allowed
        choice = server.openai().chat.completions.create(**arguments, seed=seed, max_tokens=150).choices[0]
        kinds.add(choice.finish_reason)
        if choice.finish_reason == "tool_calls":
            assert {call.function.name for call in choice.message.tool_calls} <= {"weather", "stop"}
        elif choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content), form or {"type": "object"})
    assert "stop" in kinds and (form is None or "tool_calls" in kinds)
    required = server.openai().chat.completions.create(**arguments, tool_choice=NAMED, seed=1, max_tokens=200)
    assert required.choices[0].message.tool_calls[0].function.name == "weather"
    plain = server.openai().chat.completions.create(**arguments, tool_choice="none", seed=1, max_tokens=150)
    assert plain.choices[0].finish_reason != "tool_calls"


class Begun:
    """A mask that lets a beginning be written, and then what another lets."""

    def __init__(self, ids: list[int], rest: Mask) -> None:
        self._ids, self._rest = ids, rest

    @property
    def closed(self) -> bool:
        return self._rest.closed

    def fill(self, bits: memoryview) -> None:
        self._rest.fill(bits)
        if self._ids:
            bits[:] = bytes(len(bits))
            bits[self._ids[0] // 8] = 1 << self._ids[0] % 8

    def accept(self, token: int) -> None:
        self._ids = self._ids[1:]
        self._rest.accept(token)


def test_a_call_of_the_models_own_fits_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = "{# tools tool_calls <tool_call> {\"name\": <function-name>, \"arguments\": <args>} #}"
    write_tiny(tmp_path / "tiny.gguf", context=2048, chat_template=spelled + CHATML)
    with serving(tmp_path / "tiny.gguf") as server:
        constrain = server.llm.constrain
        begin = server.llm.tokenize("So: <tool_call>\n")

        def begun(request: Request, params: SamplingParams) -> Request:
            form = constrain(request, params).form
            assert form is not None
            return request._replace(form=lambda: Begun(begin, form()))

        monkeypatch.setattr(server.llm, "constrain", begun)
        for seed in range(6):
            choice = server.openai().chat.completions.create(
                model="default", messages=MESSAGES, tools=TOOLS[:1], seed=seed, max_tokens=200
            ).choices[0]  # fmt: skip
            (call, *_) = choice.message.tool_calls
            assert choice.message.content.startswith("So: ") and "<tool_call>" not in choice.message.content
            jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
        monkeypatch.setattr(server.llm, "constrain", constrain)
        odd = [{"type": "function", "function": {"name": "odd", "parameters": {"type": "nothing"}}}]
        reply = server.openai().chat.completions.create(
            model="default", messages=MESSAGES, tools=odd, max_tokens=3, extra_body={"ignore_eos": True}
        )
        assert reply.usage.completion_tokens == 3  # a schema that cannot be held to
        nested: dict[str, Any] = {"type": "null"}
        for _ in range(300):
            nested = {"type": "array", "items": nested}
        for tool in ({"type": "function"}, {"function": {"name": "x", "parameters": nested}}):
            assert len(server.llm.chat(MESSAGES, tools=[tool], max_tokens=3, ignore_eos=True).token_ids) == 3


def test_the_shape_of_calls(server: Live) -> None:
    """Only streamed ones have a place, as OpenAI has it."""
    body = {"messages": MESSAGES, "tools": TOOLS, "tool_choice": NAMED, "seed": 1, "max_tokens": 200}
    (call,) = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["tool_calls"]
    assert call.keys() == {"id", "type", "function"} and call["function"].keys() == {"name", "arguments"}
    reply = server.post("/v1/chat/completions", body | {"stream": True})
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    (call,) = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls", ())]
    assert call.keys() == {"index", "id", "type", "function"}


def test_a_conversation_with_calls_goes_on(server: Live) -> None:
    client = server.openai()
    first = client.chat.completions.create(
        model="default", messages=MESSAGES, tools=TOOLS, tool_choice=NAMED, seed=1, max_tokens=200
    )
    said = first.choices[0].message
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "sunny"}
    messages = [*MESSAGES, said.model_dump(exclude_none=True), result]
    reply = client.chat.completions.create(model="default", messages=messages, tools=TOOLS, max_tokens=5)
    assert reply.usage.prompt_tokens > first.usage.prompt_tokens


CALL = '{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}'


@pytest.mark.parametrize(
    ("more", "told", "finish"),
    [
        ({"max_tokens": 4}, None, "length"),
        ({"max_tokens": 35}, '{"city"', "length"),
        ({"max_tokens": 300, "stop": "slo"}, '{"city": "O', "stop"),
        ({"max_tokens": 300, "stop": "eather"}, None, "stop"),
        ({"max_tokens": 300}, '{"city": "Oslo", "days": 2}', "tool_calls"),
    ],
)
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_required_call_that_was_cut_is_told_as_far_as_it_came(
    server: Live, monkeypatch: pytest.MonkeyPatch, choice: Any, more: dict[str, Any], told: str | None, finish: str
) -> None:
    force(server, monkeypatch, CALL)
    asked: Any = {"model": "default", "messages": MESSAGES, "tools": TOOLS, "tool_choice": choice}
    client = server.openai()
    whole = client.chat.completions.create(**asked, **more).choices[0]
    assert whole.finish_reason == finish and not whole.message.content
    assert [call.function.arguments for call in whole.message.tool_calls or []] == ([] if told is None else [told])
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, **more, stream=True)]
    assert chunks[-1].finish_reason == finish and not any(chunk.delta.content for chunk in chunks)
    calls = [call.function.arguments for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert calls == ([] if told is None else [told])


def test_words_behind_a_call_are_content(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    force(server, monkeypatch, f"{CALL}\nI asked.")
    asked: Any = {"model": "default", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 300}
    client = server.openai()
    message = client.chat.completions.create(**asked).choices[0].message
    assert message.content == "\nI asked." and message.tool_calls[0].function.name == "weather"
    chunks = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(delta.content or "" for delta in chunks) == message.content
    assert sum(len(delta.tool_calls or []) for delta in chunks) == 1


def test_odd_arguments_are_passed_on(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a surrogate pair and a number beyond a double: as the model wrote them, streamed or not, and back."""
    arguments = r'{"s": "\ud83d", "n": 1e999}'
    with monkeypatch.context() as patch:
        force(server, patch, f'{{"name": "stop", "arguments": {arguments}}}')
        asked: Any = {"model": "default", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 300}
        client = server.openai()
        message = client.chat.completions.create(**asked).choices[0].message
        assert message.tool_calls[0].function.arguments == arguments
        chunks = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]
        assert [call.function.arguments for delta in chunks for call in delta.tool_calls or []] == [arguments]
    back: Any = [*MESSAGES, message, {"role": "tool", "tool_call_id": "x", "content": "y"}]
    assert client.chat.completions.create(model="default", messages=back, max_tokens=1).choices


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "code", "function": {"name": "x"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "none"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "response_format": {"type": "grammar", "syntax": "regex", "grammar": "a+"}},
         "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": "nothing"}}}],
          "tool_choice": "required"}, "tools"),
    ],
)  # fmt: skip
def test_wrong_tools_are_named(server: Live, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.create(model="default", messages=MESSAGES, extra_body=more)
    assert str(caught.value.param).split("[")[0].split(".")[0] == param


@pytest.mark.parametrize("parameters", [{"not": {}}, {"x-guidance": {"lenient": True}, "not": {}}, {"$ref": "#"},
                                        {"$defs": {"a": {"$anchor": "b"}}, "$ref": "#b"}])  # fmt: skip
def test_a_refused_schema_is_told_with_its_function(server: Live, parameters: dict[str, Any]) -> None:
    tools = [*TOOLS, {"type": "function", "function": {"name": "odd", "parameters": parameters}}]
    with pytest.raises(openai.BadRequestError, match=r'tools: function \\?"odd\\?": parameters: ') as caught:
        server.openai().chat.completions.create(
            model="default", messages=MESSAGES, tools=tools, tool_choice="required"
        )
    assert caught.value.param == "tools"


def test_a_refused_format_is_told_apart_from_tools(server: Live) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.create(
            model="default", messages=MESSAGES, tools=TOOLS, response_format=wanted
        )
    assert caught.value.param == "response_format"
