"""/v1/completions, /tokenize and /detokenize."""

from __future__ import annotations

import json

import pytest

from tests.server.live import Live

TEXT = "once upon a time"


def test_a_continuation_is_the_models(server: Live) -> None:
    done = server.llm.generate(TEXT, max_tokens=16, seed=3)
    reply = server.openai().completions.create(model="default", prompt=TEXT, seed=3)
    assert reply.choices[0].text == done.text and reply.object == "text_completion"
    assert reply.usage is not None and reply.usage.completion_tokens == len(done.token_ids) <= 16


@pytest.mark.parametrize("kind", ["text", "ids", "texts", "lists of ids"])
def test_kinds_of_prompts(server: Live, kind: str) -> None:
    ids = server.llm.tokenize(TEXT, add_special=True)
    prompt = {"text": TEXT, "ids": ids, "texts": [TEXT, "a"], "lists of ids": [ids, ids]}[kind]
    count = 2 if kind in ("texts", "lists of ids") else 1
    reply = server.openai().completions.create(model="default", prompt=prompt, seed=3, n=2, max_tokens=5)
    assert [choice.index for choice in reply.choices] == list(range(2 * count))
    assert reply.choices[0].text == server.llm.generate(TEXT, max_tokens=5, seed=3).text


def test_a_stream_is_the_same_text(server: Live) -> None:
    whole = server.openai().completions.create(model="default", prompt=TEXT, seed=3, max_tokens=30)
    stream = server.openai().completions.create(model="default", prompt=TEXT, seed=3, max_tokens=30, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_every_event_is_a_token_and_unicode(server: Live) -> None:
    """The tiny model writes bytes at random, which are mostly no characters."""
    body = {"prompt": TEXT, "max_tokens": 200, "seed": 4, "stream": True, "ignore_eos": True, "temperature": 1.5}
    reply = server.post("/v1/completions", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = reply.content.decode("utf-8").split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    events = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
    assert len(events) == 201 and events[-1]["choices"][0]["finish_reason"] == "length"
    whole = server.post("/v1/completions", body | {"stream": False}).json()
    assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]


def test_logprobs(server: Live) -> None:
    reply = server.openai().completions.create(
        model="default", prompt=TEXT, temperature=0, logprobs=2, max_tokens=6, extra_body={"ignore_eos": True}
    )
    told = reply.choices[0].logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    assert len(told.tokens) == 6 and all(len(top) <= 2 for top in told.top_logprobs)
    done = server.llm.generate(TEXT, temperature=0, logprobs=2, max_tokens=6, ignore_eos=True)
    assert done.token_logprobs is not None
    assert told.token_logprobs == [pytest.approx(known.logprob) for known in done.token_logprobs]


@pytest.mark.parametrize("count", [0, 1, 20])
def test_top_logprobs_name_every_token(server: Live, count: int) -> None:
    """Hot enough that tokens which are no text, and unlikely ones, are drawn."""
    body = {"prompt": TEXT, "max_tokens": 60, "seed": 4, "ignore_eos": True, "temperature": 2, "logprobs": count}
    told = server.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    free = {"temperature": 2, "seed": 4, "max_tokens": 60, "ignore_eos": True, "logprobs": count}
    done = server.llm.generate(TEXT, **free)
    assert done.token_logprobs is not None
    raw = [server.llm.tokenizer.token_bytes(known.token) for known in done.token_logprobs]
    assert [as_bytes(name) for name in told["tokens"]] == raw
    assert any(name.startswith("bytes:") for name in told["tokens"])
    for known, top in zip(done.token_logprobs, told["top_logprobs"], strict=True):
        expected = dict([*known.top, (known.token, known.logprob)])
        named = {server.llm.tokenizer.token_bytes(token): logprob for token, logprob in expected.items()}
        assert {as_bytes(name): logprob for name, logprob in top.items()} == pytest.approx(named)
        assert len(top) == len(expected) >= count


def as_bytes(name: str) -> bytes:
    """The bytes of a token, from how it is named."""
    _, mark, escaped = name.rpartition("bytes:")
    return bytes.fromhex(escaped.replace("\\x", "")) if mark else name.encode()


@pytest.mark.parametrize("text", ["hello", "", "<|im_end|>", "naïve 🦊"])
@pytest.mark.parametrize("parse", [False, True])
def test_tokenize_and_back(server: Live, text: str, parse: bool) -> None:
    tokens = server.post("/tokenize", {"content": text, "parse_special": parse}).json()["tokens"]
    assert tokens == server.llm.tokenize(text, False, parse)
    assert server.post("/detokenize", {"tokens": tokens}).json() == {"content": server.llm.detokenize(tokens)}
