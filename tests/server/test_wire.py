"""Events that are put together from encoded parts are those that encoding the whole gives."""

from __future__ import annotations

import json

import pytest

from localllm.server import wire

TEXTS = ["", "plain", 'quotes " and \\', "\n\t\0\x1f", "wörld 世界 \U0001f600", '"content":""', "</script>\u2028"]


@pytest.mark.parametrize("model", ["tiny", 'a"b', '"content":"" "text":""', "模型"])
def test_events_of_texts(model: str) -> None:
    def chat(text: str) -> wire.Chunk:
        choice = wire.ChatChunkChoice(3, wire.Delta(content=text))
        return wire.Chunk("id", "chat.completion.chunk", 7, model, [choice], None)

    def plain(text: str) -> wire.Chunk:
        return wire.Chunk("id", "text_completion", 7, model, [wire.TextChoice(3, text)])

    for make, field in ((chat, "content"), (plain, "text")):
        event = wire.TextEvents(make(""), field)
        for text in TEXTS:
            assert event(text) == wire.event(make(text))
            assert json.loads(event(text)[6:])["model"] == model
