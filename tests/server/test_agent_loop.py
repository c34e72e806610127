"""The loop of an agent through the real openai client: what its helpers return is sent back as they have it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.conftest import shared_folder
from tests.server.live import Live, force, serving
from tests.tiny_models import write_tiny

LARGE = 2**70 + 1
ARGUMENTS = f'{{"number": {LARGE}, "where": "Köln"}}'
MESSAGES: list[Any] = [{"role": "user", "content": "count them"}]
FORMS: list[Callable[[Any], Any]] = [lambda message: message, lambda m: m.model_dump(), lambda m: m.to_dict()]


class Count(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    number: int
    where: str


TOOLS: list[Any] = [openai.pydantic_function_tool(Count)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    file = tmp_path_factory.mktemp("loop") / "tiny.gguf"
    write_tiny(file, context=2048)
    with serving(file) as live:
        yield live


def go_on(server: Live, said: Any) -> int:
    """The tokens of the prompt that the next turn has."""
    result = {"role": "tool", "tool_call_id": "call_1", "content": "many"}
    reply = server.openai().chat.completions.create(
        model="default", messages=[*MESSAGES, said, result], tools=TOOLS, max_tokens=1
    )
    assert reply.usage is not None
    return reply.usage.prompt_tokens


@pytest.mark.parametrize("form", FORMS, ids=["object", "model_dump", "to_dict"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_parsed_call_is_sent_back(
    server: Live, monkeypatch: pytest.MonkeyPatch, form: Callable[[Any], Any], streamed: bool
) -> None:
    with monkeypatch.context() as patch:
        force(server, patch, f'{{"name": "Count", "arguments": {ARGUMENTS}}}')
        asked: dict[str, Any] = {"model": "default", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 300}
        completions = server.openai().chat.completions
        if streamed:
            with completions.stream(**asked) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = completions.parse(**asked).choices[0].message
    (call,) = message.tool_calls or []
    assert call.function.parsed_arguments == Count(number=LARGE, where="Köln")
    plain = {"id": call.id, "type": "function", "function": {"name": "Count", "arguments": ARGUMENTS}}
    assert go_on(server, form(message)) == go_on(server, {"role": "assistant", "tool_calls": [plain]})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's own, of its own message
@pytest.mark.parametrize("form", FORMS, ids=["object", "model_dump", "to_dict"])
def test_a_parsed_answer_is_sent_back(
    server: Live, monkeypatch: pytest.MonkeyPatch, form: Callable[[Any], Any]
) -> None:
    with monkeypatch.context() as patch:
        force(server, patch, ARGUMENTS)
        reply = server.openai().chat.completions.parse(
            model="default", messages=MESSAGES, response_format=Count, max_tokens=100
        )
    message = reply.choices[0].message
    assert message.parsed == Count(number=LARGE, where="Köln") and message.refusal is None
    assert go_on(server, form(message)) == go_on(server, {"role": "assistant", "content": ARGUMENTS})


REPLIES = {  # what models of some families write, and the template that they have, by a part of its name
    "meta-llama": '[{"name": "Count", "parameters": {"number": 1, "where": "a"}}, '
    '{"name": "Count", "parameters": {"number": 2, "where": "b"}}]',
    "gemma-2": '[{"name": "Count", "arguments": {"number": 1, "where": "a"}}, '
    '{"name": "Count", "arguments": {"number": 2, "where": "b"}}]',
    "Mistral-Nemo": '[TOOL_CALLS][{"name": "Count", "arguments": {"number": 1, "where": "a"}}, '
    '{"name": "Count", "arguments": {"number": 2, "where": "b"}}]',
    "Qwen2.5": '<tool_call>{"name": "Count", "arguments": {"number": 1, "where": "a"}}</tool_call>'
    '<tool_call>{"name": "Count", "arguments": {"number": 2, "where": "b"}}</tool_call>',
}


@pytest.mark.skipif(shared_folder() is None, reason="no shared test material: set LOCALLLM_TEST_DATA")
@pytest.mark.parametrize("family", REPLIES)
@pytest.mark.parametrize("ids", ["ours", "others'"])
def test_two_calls_are_sent_back_to_every_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, ids: str
) -> None:
    (path,) = (shared_folder() or Path()).glob(f"templates/*{family}*.jinja")
    write_tiny(tmp_path / "tiny.gguf", context=8192, chat_template=path.read_text())
    prompts = []
    with serving(tmp_path / "tiny.gguf") as server:
        prepare = server.llm.prepare
        monkeypatch.setattr(server.llm, "prepare", lambda *args: prompts.append(prepare(*args)) or prompts[-1])
        with monkeypatch.context() as patch:
            force(server, patch, REPLIES[family])
            asked: Any = {"model": "default", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 300}
            said = server.openai().chat.completions.create(**asked).choices[0].message.model_dump()
        for i, call in enumerate(said["tool_calls"]):
            call["id"] = f"call_{i}" if ids == "others'" else call["id"]
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "found it"} for call in said["tool_calls"]]
        messages = [*MESSAGES, said, *results]
        server.openai().chat.completions.create(model="default", messages=messages, tools=TOOLS, max_tokens=1)
    told = prompts[-1].text
    assert told.count("found it") == 2
    for arguments in ('{"number": 1, "where": "a"}', '{"number": 2, "where": "b"}'):
        assert told.count(arguments) == 1


def test_raw_responses(server: Live) -> None:
    raw = server.openai().chat.completions.with_raw_response.create(model="default", messages=MESSAGES, max_tokens=3)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == json.loads(raw.text)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "said",
    [
        {"content": "no way"},
        {"refusal": "no way"},
        {"content": [{"type": "refusal", "refusal": "no way"}]},
        {"content": [{"type": "text", "text": "no "}, {"type": "refusal", "refusal": "way"}]},
        {"content": "no way", "refusal": None, "audio": None, "function_call": None, "annotations": [], "id": "m1"},
    ],
)
def test_a_refusal_is_text(server: Live, said: dict[str, Any]) -> None:
    assert go_on(server, {"role": "assistant", **said}) == go_on(server, {"role": "assistant", "content": "no way"})


def test_reasoning_has_two_names(tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.reasoning_content }}{% endfor %}tool_calls tools"
    write_tiny(tmp_path / "tiny.gguf", context=512, chat_template=template)
    with serving(tmp_path / "tiny.gguf") as server:
        counts = [
            go_on(server, {"role": "assistant", "content": "x", **said})
            for said in ({"reasoning_content": "hmmm"}, {"reasoning": "hmmm"}, {})
        ]
        assert counts[0] == counts[1] == counts[2] + 4
        body = {"messages": [{"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}]}
        assert server.post("/v1/chat/completions", body).json()["error"]["param"] == "messages[0].reasoning"
