"""/v1/chat/completions through the real openai client, and against what the LLM behind the server answers itself."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from localllm.messages import Message
from tests.server.live import Live, serving
from tests.tiny_models import CHATML, write_tiny

MESSAGES: list[Message] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]


def test_an_answer_is_the_models(server: Live) -> None:
    done = server.llm.chat(MESSAGES, max_tokens=20, seed=3)
    reply = server.openai().chat.completions.create(model="default", messages=MESSAGES, max_tokens=20, seed=3)
    assert reply.choices[0].message.content == done.text
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == done.finish_reason
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == done.prompt_tokens
    assert reply.usage.completion_tokens == len(done.token_ids)
    assert reply.usage.total_tokens == done.prompt_tokens + len(done.token_ids)


def test_a_stream_is_the_same_answer_one_event_a_token(server: Live) -> None:
    done = server.llm.chat(MESSAGES, max_tokens=20, seed=3)
    chunks = list(
        server.openai().chat.completions.create(
            model="default",
            messages=MESSAGES,
            max_completion_tokens=20,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *tokens, end, usage = chunks
    assert len(tokens) == len(done.token_ids)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in [*tokens, end]) == done.text
    assert tokens[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in tokens] == [None] * len(tokens)
    assert end.choices[0].finish_reason == done.finish_reason and not end.choices[0].delta.content
    assert usage.choices == [] and usage.usage is not None
    assert usage.usage.completion_tokens == len(done.token_ids)


def test_without_include_usage_there_is_none(server: Live) -> None:
    chunks = list(
        server.openai().chat.completions.create(model="default", messages=MESSAGES, max_tokens=2, stream=True)
    )
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_logprobs(server: Live) -> None:
    done = server.llm.chat(MESSAGES, max_tokens=6, temperature=0, logprobs=3, ignore_eos=True)
    arguments = {
        "model": "default", "messages": MESSAGES, "max_tokens": 6, "temperature": 0, "logprobs": True,
        "top_logprobs": 3, "extra_body": {"ignore_eos": True},
    }  # fmt: skip
    reply = server.openai().chat.completions.create(**arguments)
    told = reply.choices[0].logprobs.content
    assert done.token_logprobs is not None
    assert [entry.logprob for entry in told] == [pytest.approx(known.logprob) for known in done.token_logprobs]
    for entry, known in zip(told, done.token_logprobs, strict=True):
        assert bytes(entry.bytes) == server.llm.tokenizer.token_bytes(known.token)
        assert [top.logprob for top in entry.top_logprobs] == [pytest.approx(p) for _, p in known.top]
    streamed = [chunk.choices[0] for chunk in server.openai().chat.completions.create(**arguments, stream=True)]
    assert [one.logprobs.content[0] for one in streamed[:-1]] == told
    assert streamed[-1].logprobs is None


def test_choices_differ_and_the_first_is_that_of_one(server: Live) -> None:
    client = server.openai()

    def ask(n: int) -> list[str]:
        reply = client.chat.completions.create(model="default", messages=MESSAGES, max_tokens=12, seed=7, n=n)
        return [choice.message.content for choice in reply.choices]

    four = ask(4)
    assert four[0] == ask(1)[0] and len(set(four)) > 1


def test_streamed_choices_are_told_apart(server: Live) -> None:
    client = server.openai()
    arguments = {"model": "default", "messages": MESSAGES, "max_tokens": 12, "seed": 7, "n": 3}
    whole = [choice.message.content for choice in client.chat.completions.create(**arguments).choices]
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**arguments, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == whole


def test_stop_texts_end_the_answer_and_are_not_in_it(server: Live) -> None:
    free = server.llm.chat(MESSAGES, max_tokens=40, seed=1).text
    stop = free[10:12]
    client = server.openai()
    arguments = {"model": "default", "messages": MESSAGES, "max_tokens": 40, "seed": 1}
    for given in (stop, [stop, "never to be written"]):
        reply = client.chat.completions.create(**arguments, stop=given)
        assert reply.choices[0].message.content == free[: free.index(stop)]
        assert reply.choices[0].finish_reason == "stop"
        chunks = list(client.chat.completions.create(**arguments, stop=given, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == free[: free.index(stop)]
        assert chunks[-1].choices[0].finish_reason == "stop"
    server.wait_until_idle()


def test_a_bias_forces_a_token(server: Live) -> None:
    token = server.llm.tokenize("e")[0]
    reply = server.openai().chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=5, temperature=0, logit_bias={str(token): 100}
    )
    assert reply.choices[0].message.content == "eeeee"


def test_parts_are_one_text(server: Live) -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    client = server.openai()
    texts = [
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": content}], max_tokens=8, seed=1
        )
        for content in (parts, "hello there")
    ]
    assert texts[0].choices[0].message.content == texts[1].choices[0].message.content
    assert texts[0].usage == texts[1].usage or texts[1].usage.prompt_tokens_details.cached_tokens


def test_cached_tokens_are_told_and_a_salt_keeps_prefixes_apart(server: Live) -> None:
    client = server.openai()
    messages = [{"role": "user", "content": "a rather long question " * 8}]

    def cached(salt: str) -> int:
        reply = client.chat.completions.create(
            model="default", messages=messages, max_tokens=1, extra_body={"cache_salt": salt}
        )
        return reply.usage.prompt_tokens_details.cached_tokens

    assert cached("one") == 0
    again = cached("one")
    assert again > 100 and again % 16 == 0
    assert cached("two") == 0


def test_the_shapes_that_openai_requires(server: Live) -> None:
    """Null, but there: clients of typed languages want it."""
    choice = server.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1, "logprobs": True}).json()[
        "choices"
    ][0]
    assert choice["message"]["refusal"] is None is choice["logprobs"]["refusal"]
    assert {"refusal", "content"} <= choice["message"].keys() & choice["logprobs"].keys()


def test_timings(server: Live) -> None:
    body = {"messages": MESSAGES, "max_tokens": 6, "ignore_eos": True}
    told = server.post("/v1/chat/completions", body).json()
    timings = told["timings"]
    assert timings["predicted_n"] == 6
    assert timings["prompt_n"] + timings["cache_n"] == told["usage"]["prompt_tokens"]
    assert timings["prompt_ms"] > 0 and timings["predicted_ms"] > 0


@pytest.mark.parametrize("name", ["default", "tiny", "tiny.gguf", None])
def test_names_of_the_model(server: Live, name: str | None) -> None:
    body = {"model": name, "messages": MESSAGES, "max_tokens": 1}
    assert server.post("/v1/chat/completions", body).json()["model"] == "tiny"


def test_another_model_is_not_found(server: Live) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.openai().chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_models(server: Live) -> None:
    client = server.openai()
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "local"


def test_neutral_values_pass(server: Live) -> None:
    neutral = {
        "user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prompt_cache_key": "k",
        "safety_identifier": "s", "stop": None, "seed": None, "logit_bias": None, "audio": None, "functions": [],
        "modalities": ["text"], "stream_options": None, "n": 1, "logprobs": False, "top_logprobs": 0,
        "prompt_cache_retention": "24h", "cache_prompt": True, "repetition_penalty": 1.0, "function_call": "auto",
    }  # fmt: skip
    plain = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    said = {"role": "user", "content": [{"type": "text", "text": "hello there", "cache_control": {"type": "x"}}]}
    marked = {"messages": [MESSAGES[0], said], "stop": "", "seed": -1}
    bodies = (plain, plain | neutral, plain | {"stop": []}, plain | marked)
    replies = [server.post("/v1/chat/completions", body).json() for body in bodies]
    assert [reply["choices"] for reply in replies] == [replies[0]["choices"]] * 4


def test_seeds_are_64_bits(server: Live) -> None:
    for seed in (0, 2**53 + 1, 2**63, 2**64 - 1):
        reply = server.openai().chat.completions.create(model="default", messages=MESSAGES, max_tokens=20, seed=seed)
        assert reply.choices[0].message.content == server.llm.chat(MESSAGES, max_tokens=20, seed=seed).text


def test_a_client_may_send_back_what_it_got(server: Live) -> None:
    client = server.openai()
    first = client.chat.completions.create(model="default", messages=MESSAGES, max_tokens=4)
    said = first.choices[0].message.model_dump()
    messages = [*MESSAGES, said, {"role": "user", "content": "go on"}]
    assert client.chat.completions.create(model="default", messages=messages, max_tokens=4).choices


def test_too_long_a_prompt_states_both_numbers(server: Live) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.create(model="default", messages=[{"role": "user", "content": "long " * 1000}])
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"
    assert "511" in caught.value.message


def test_reasoning_is_told_apart(tmp_path: Path) -> None:
    """The prompt ends inside of reasoning, and the tiny model never closes it."""
    template = CHATML.replace("assistant\n", "assistant\n<think>\n") + "{# </think> #}"
    write_tiny(tmp_path / "thinker.gguf", chat_template=template)
    with serving(tmp_path / "thinker.gguf") as server:
        body = {"messages": MESSAGES, "max_tokens": 10, "ignore_eos": True, "seed": 1}
        message = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]
        assert message["reasoning_content"] and message["content"] == ""
        reply = server.post("/v1/chat/completions", body | {"stream": True})
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        assert len(events) == 11
        deltas = [event["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message["reasoning_content"]
        assert not any(delta.get("content") for delta in deltas)


def test_variables_of_the_template(tmp_path: Path) -> None:
    """They are texts like any other: what looks like a special token in them is none."""
    template = "{{ messages[0].content }}{{ enable_thinking is false }}{{ level }}{{ reasoning_effort }}"
    write_tiny(tmp_path / "tiny.gguf", chat_template=template)
    with serving(tmp_path / "tiny.gguf") as server:

        def tokens(**more: Any) -> int:
            body = {"messages": MESSAGES[1:], "max_tokens": 1, **more}
            reply = server.post("/v1/chat/completions", body)
            assert reply.status_code == 200, reply.text
            return int(reply.json()["usage"]["prompt_tokens"])

        def written(text: str) -> int:
            return len(server.llm.tokenize(f"{MESSAGES[1]['content']}{text}", add_special=True))

        assert tokens() == tokens(chat_template_kwargs={}) == written("False")
        variables = {"enable_thinking": False, "level": "<|im_end|>"}
        assert tokens(chat_template_kwargs=variables) == written("True<|im_end|>")
        assert tokens(reasoning_effort="high") == written("Falsehigh")
        assert tokens(chat_template_kwargs={"reasoning_effort": "low"}, reasoning_effort="low") == written("Falselow")
        for more, param in (
            ({"chat_template_kwargs": {"bos_token": ""}}, "chat_template_kwargs.bos_token"),
            ({"chat_template_kwargs": {"lev": 1}}, "chat_template_kwargs.lev"),
            ({"chat_template_kwargs": {"content": 1}}, "chat_template_kwargs.content"),
            ({"chat_template_kwargs": {"false": 1}}, "chat_template_kwargs.false"),
            ({"chat_template_kwargs": {"reasoning_effort": "x"}, "reasoning_effort": "y"}, "reasoning_effort"),
        ):
            reply = server.post("/v1/chat/completions", {"messages": MESSAGES, **more})
            assert reply.status_code == 400 and reply.json()["error"]["param"] == param


def test_a_crowd_gets_what_each_gets_alone(server: Live) -> None:
    def ask(i: int) -> str:
        reply = server.openai().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": f"question {i} " * (i + 1)}],
            max_tokens=24,
            seed=i,
            extra_body={"ignore_eos": True},
        )
        return reply.choices[0].message.content

    alone = [ask(i) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == alone
    server.wait_until_idle()


def test_the_asynchronous_client(server: Live) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            stream = await client.chat.completions.create(
                model="default", messages=MESSAGES, max_tokens=9, seed=2, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == server.llm.chat(MESSAGES, max_tokens=9, seed=2).text
