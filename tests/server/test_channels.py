"""A model that writes gpt-oss' messages, as if it had wanted to: its answer is held to a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from localllm.params import SamplingParams
from localllm.text.template import ChatTemplate
from tests.server.live import Live, force, serving
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


def test_a_form_is_that_of_the_answer(server: Live) -> None:
    """What comes before the final message is free."""
    request = server.llm.prepare([{"role": "user", "content": "?"}])
    held = server.llm.constrain(request, SamplingParams(json_schema={"type": "object"}))
    assert held.form is not None
    mask, bits = held.form(), bytearray(-(-server.llm.n_vocab // 32) * 4)
    for token in server.llm.tokenize(f"{ANALYSIS}Hm.<|end|><|start|>assistant{FINAL}"):
        mask.fill(memoryview(bits))
        assert bits == b"\xff" * len(bits)
        mask.accept(token)
    mask.fill(memoryview(bits))
    allowed = [token for token in range(server.llm.n_vocab) if bits[token // 8] >> token % 8 & 1]
    assert {server.llm.detokenize([token])[:1] for token in allowed} == {"{"}


def test_earlier_reasoning_is_the_templates(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{# <|channel|>final<|message|> #}{% for message in messages %}{{ message.thinking }}{% endfor %}"
    monkeypatch.setattr(server.llm, "_template", ChatTemplate(source))
    messages = [{"role": "assistant", "content": "x", "reasoning_content": "twelve"}]
    reply = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert reply.json()["usage"]["prompt_tokens"] == len(server.llm.tokenize("twelve", add_special=True))
