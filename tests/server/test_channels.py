"""A model that writes gpt-oss' messages, as if it had wanted to: its answer is held to a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from localllm.llm import Request
from localllm.params import SamplingParams
from localllm.text.template import ChatTemplate
from tests.server.live import Live, force, serving
from tests.server.test_tools import Begun
from tests.tiny_models import CHATML, write_tiny

TEMPLATE = (
    "{# <|channel|>analysis<|message|> <|channel|>final<|message|> <|channel|>commentary tools tool_calls #}" + CHATML
)
ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
CALL = '<|channel|>commentary to=functions.stop <|constrain|>json<|message|>{"now": 1}<|call|>'
TOOLS: list[Any] = [{"type": "function", "function": {"name": "stop"}}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    file = tmp_path_factory.mktemp("channels") / "tiny.gguf"
    write_tiny(file, context=2048, chat_template=TEMPLATE)
    with serving(file) as live:
        yield live


def ask(server: Live, **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 300, **more}
    found: dict[str, Any] = server.post("/v1/chat/completions", body).json()["choices"][0]
    return found


def test_reasoning_and_answer(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    force(server, monkeypatch, f"{ANALYSIS}Hm.<|end|><|start|>assistant{FINAL}Yes.")
    message = ask(server)["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes.")
    with server.openai().chat.completions.create(
        model="default", messages=[{"role": "user", "content": "?"}], max_tokens=300, stream=True
    ) as chunks:
        deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Hm."
    assert "".join(delta.content or "" for delta in deltas) == "Yes."


def test_reasoning_and_a_call(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    force(server, monkeypatch, f"{ANALYSIS}Hm.<|end|><|start|>assistant{CALL}")
    choice = ask(server, tools=TOOLS)
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "stop", "arguments": '{"now": 1}'} and choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"] == "Hm." and choice["message"]["content"] is None


SCHEMA = {"type": "object", "properties": {"now": {"type": "boolean"}}, "required": ["now"],
          "additionalProperties": False}  # fmt: skip
HELD_TOOLS: list[Any] = [{"type": "function", "function": {"name": "stop", "parameters": SCHEMA}}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
THOUGHT = f"{ANALYSIS}Hm.<|end|><|start|>assistant"
HEAD = CALL[: CALL.index("{")]


def begin(server: Live, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The model writes a text first, and goes on as its form lets it."""
    constrain, ids = server.llm.constrain, server.llm.tokenize(text)

    def begun(request: Request, params: SamplingParams) -> Request:
        form = constrain(request, params).form
        assert form is not None
        return request._replace(form=lambda: Begun(ids, form()))

    monkeypatch.setattr(server.llm, "constrain", begun)


@pytest.mark.parametrize("head", [FINAL, "<|channel|>final <|constrain|>json<|message|>"])
@pytest.mark.parametrize("more", [{}, {"tools": HELD_TOOLS}])
def test_a_form_is_that_of_the_answer(
    server: Live, monkeypatch: pytest.MonkeyPatch, head: str, more: dict[str, Any]
) -> None:
    begin(server, monkeypatch, THOUGHT + head)
    choice = ask(server, response_format=FORMAT, **more)
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    assert choice["finish_reason"] == "stop" and choice["message"]["reasoning_content"] == "Hm."


@pytest.mark.parametrize("more", [{"tool_choice": "required"}, {"response_format": FORMAT}])
def test_a_call_is_in_the_models_own_form(server: Live, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    begin(server, monkeypatch, THOUGHT + HEAD)
    choice = ask(server, tools=HELD_TOOLS, **more)
    (call,) = choice["message"]["tool_calls"]
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None


@pytest.mark.parametrize("text", ["plain", f"{THOUGHT}<|channel|>commentary<|message|>Sure<|end|>",
                                  f'{HEAD}{{"now": "no', f'{FINAL}{{"then'])  # fmt: skip
def test_what_leaves_the_form_is_an_error_and_no_failure(
    server: Live, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    begin(server, monkeypatch, text)
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 300, "tools": HELD_TOOLS}
    reply = server.post("/v1/chat/completions", {**body, "response_format": FORMAT})
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "form_dead_end"
    assert httpx.get(server.url + "/health").json()["failures"] == 0


def test_earlier_reasoning_is_the_templates(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{# <|channel|>final<|message|> #}{% for message in messages %}{{ message.thinking }}{% endfor %}"
    monkeypatch.setattr(server.llm, "_template", ChatTemplate(source))
    messages = [{"role": "assistant", "content": "x", "reasoning_content": "twelve"}]
    reply = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert reply.json()["usage"]["prompt_tokens"] == len(server.llm.tokenize("twelve", add_special=True))
