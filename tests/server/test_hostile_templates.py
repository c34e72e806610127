"""Every template of the text layer's attacks, met by a client of a running server: a refusal in OpenAI's shape that
names the messages, and the next request is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.text.template import ChatTemplate
from tests.server.live import Live, serving
from tests.text.test_template_sandbox import BOMBS, ESCAPES
from tests.tiny_models import write_tiny

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
PLAIN = {"prompt": "hello", "max_tokens": 2, "seed": 1}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time are the same code at a tenth of the time."""
    monkeypatch.setattr("localllm.text.child.WORK_SECONDS", 0.2)
    monkeypatch.setattr("localllm.text.child.STARVED_SECONDS", 0.1)


@pytest.fixture(scope="module")
def own_server(tiny: Path) -> Iterator[Live]:
    with serving(tiny) as live:
        yield live


def assert_refused(server: Live, body: dict[str, object]) -> None:
    before = server.post("/v1/completions", PLAIN).json()["choices"]
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(reply.json()) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages") and error["message"]
    assert "Traceback" not in reply.text and "root:" not in reply.text and len(reply.content) < 4000
    assert server.post("/v1/completions", PLAIN).json()["choices"] == before
    server.wait_until_idle()


@pytest.mark.parametrize("source", ESCAPES + BOMBS, ids=range(len(ESCAPES + BOMBS)))
@pytest.mark.usefixtures("impatient")
def test_a_hostile_template_harms_nobody(source: str, own_server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_server.llm, "_template", ChatTemplate(source))
    assert_refused(own_server, CHAT | {"stream": len(source) % 2 == 0})


@pytest.mark.parametrize("number", [1, 19, len(ESCAPES) + 10, len(ESCAPES) + 30])
@pytest.mark.usefixtures("impatient")
def test_as_a_model_brings_it(number: int, tmp_path: Path) -> None:
    source = (ESCAPES + BOMBS)[number]
    write_tiny(tmp_path / "hostile.gguf", chat_template=source)
    with serving(tmp_path / "hostile.gguf") as server:
        assert_refused(server, CHAT)


def test_there_are_enough_of_them() -> None:
    assert len(ESCAPES) >= 40 and len(BOMBS) >= 30
