"""The class LLM on tiny random models: what it promises to people who call it, from one thread or from many."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm import LLM, Completion, SamplingParams
from localllm.config import ModelOptions, options_of
from localllm.errors import (
    ClosedError,
    DeviceError,
    FileError,
    ForkError,
    FormatError,
    InvalidArgument,
    MemoryLimitError,
    TemplateError,
    UnsupportedError,
)
from tests.tiny_models import write_tiny

EOS = 258
TEXT = "once upon a time there was"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("llm") / "tiny.gguf"
    write_tiny(file, context=256)
    return file


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[LLM]:
    with LLM(path, threads=1) as opened:
        yield opened


# ---- answers ----


def test_a_completion_tells_everything(llm: LLM) -> None:
    done = llm.generate(TEXT, max_tokens=12, seed=5, logprobs=3, ignore_eos=True)
    assert isinstance(done, Completion)
    assert (len(done.token_ids), done.finish_reason, done.seed) == (12, "length", 5)
    assert done.prompt_tokens == len(llm.tokenize(TEXT, add_special=True))
    assert done.text == llm.detokenize(done.token_ids)
    assert done.token_logprobs is not None
    assert [item.token for item in done.token_logprobs] == done.token_ids
    assert all(len(item.top) == 3 for item in done.token_logprobs)


def test_a_seed_repeats_an_answer_and_without_one_it_is_drawn(llm: LLM) -> None:
    first = llm.generate(TEXT, max_tokens=20)
    again = llm.generate(TEXT, max_tokens=20, seed=first.seed)
    other = llm.generate(TEXT, max_tokens=20)
    assert again.token_ids == first.token_ids
    assert other.seed != first.seed


def test_a_list_is_a_batch_of_the_same(llm: LLM) -> None:
    prompts = [TEXT, "x", llm.tokenize("other words"), np.arange(5)]
    alone = [llm.generate(prompt, max_tokens=15, seed=9).token_ids for prompt in prompts]
    assert [done.token_ids for done in llm.generate(prompts, max_tokens=15, seed=9)] == alone
    assert llm.generate([]) == []


def test_a_stream_is_the_same_answer_in_pieces(llm: LLM) -> None:
    whole = llm.generate(TEXT, max_tokens=25, seed=3)
    with llm.stream(TEXT, max_tokens=25, seed=3) as stream:
        pieces = list(stream)
    assert len(pieces) > 5
    assert "".join(pieces) == whole.text
    assert stream.completion.token_ids == whole.token_ids
    assert stream.timing.first_token is not None


def test_params_as_an_object_and_by_name(llm: LLM) -> None:
    params = SamplingParams(max_tokens=6, seed=2, temperature=1.5)
    assert llm.generate(TEXT, params).token_ids == llm.generate(TEXT, max_tokens=6, seed=2, temperature=1.5).token_ids
    assert len(llm.generate(TEXT, params, max_tokens=3).token_ids) <= 3


def test_a_stop_string_ends_the_text_before_it(llm: LLM) -> None:
    whole = llm.generate(TEXT, max_tokens=40, seed=1, ignore_eos=True).text
    stop = whole[10:13]
    done = llm.generate(TEXT, max_tokens=40, seed=1, ignore_eos=True, stop=["never there", stop])
    assert done.text == whole[: whole.index(stop)]
    assert done.finish_reason == "stop"
    assert "".join(llm.stream(TEXT, max_tokens=40, seed=1, ignore_eos=True, stop=stop)) == done.text


def test_an_end_token_ends_the_answer_unless_ignored(llm: LLM) -> None:
    done = llm.generate(TEXT, logit_bias={EOS: 1000.0})
    assert (done.token_ids, done.text, done.finish_reason) == ([EOS], "", "stop")
    done = llm.generate(TEXT, logit_bias={EOS: 1000.0}, ignore_eos=True, max_tokens=4)
    assert (done.token_ids, done.text, done.finish_reason) == ([EOS] * 4, "", "length")


def test_without_max_tokens_the_context_is_the_end(llm: LLM) -> None:
    done = llm.generate([1, 2, 3], ignore_eos=True)
    assert done.finish_reason == "length"
    assert done.prompt_tokens + len(done.token_ids) == llm.context == 256


def test_too_long_a_prompt_states_both_numbers(llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match=r"300.*256"):
        llm.generate([7] * 300)
    with pytest.raises(InvalidArgument, match=r"300.*256"):
        llm.logits([7] * 300)


@pytest.mark.parametrize(
    ("prompt", "sampling", "sentence"),
    [
        ("", {}, "0 tokens"),
        ([320], {}, "320"),
        ([-1], {}, "-1"),
        (["a", 3.5], {}, "3.5"),
        (7, {}, "7"),
        (TEXT, {"temperature": -1}, "temperature"),
        (TEXT, {"logit_bias": {320: 1.0}}, "320"),
        (TEXT, {"stop": ""}, "stop"),
        (TEXT, {"max_tokens": 0}, "max_tokens"),
    ],
)
def test_wrong_arguments_are_named(llm: LLM, prompt: object, sampling: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        llm.generate(prompt, **sampling)


CALLS = [{"name": "stop", "parameters": {"enum": [{"now": True}]}}]


def test_forms_hold_an_answer(llm: LLM) -> None:
    done = llm.generate([TEXT, "a"], grammar='root ::= ("x" | "yy")+ "!"', max_tokens=100, seed=2)
    assert all(re.fullmatch("(x|yy)+!", one.text) for one in done if one.finish_reason == "stop")
    schema = {"enum": ["red", "green"]}
    assert json.loads(llm.generate(TEXT, json_schema=schema).text) in schema["enum"]
    assert json.loads(llm.generate(TEXT, json_schema=json.dumps(schema)).text) in schema["enum"]
    assert asyncio.run(llm.agenerate(TEXT, json_schema=schema, seed=4)).text == (
        llm.generate(TEXT, json_schema=schema, seed=4).text
    )
    called = json.loads(llm.generate(TEXT, calls=CALLS, max_tokens=100).text)
    assert called == {"name": "stop", "arguments": {"now": True}}
    for text in ("1", '{"name": "stop", "arguments": {"now": true}}'):  # either may be written
        bias = {llm.tokenize(text)[0]: 100.0}
        assert llm.generate(TEXT, calls=CALLS, json_schema={"const": 1}, logit_bias=bias, max_tokens=100).text == text


def test_forms_that_are_none_are_refused_by_name(llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="grammar"):
        llm.generate(TEXT, grammar="root ::= (")
    with pytest.raises(InvalidArgument, match="json_schema"):
        llm.generate(TEXT, json_schema={"type": "nothing"})
    for other in ({"json_schema": {}}, {"calls": CALLS}):
        with pytest.raises(InvalidArgument, match="cannot be given with"):
            llm.generate(TEXT, grammar="/x/", **other)
    for form in ({"json_schema": {}}, {"calls": CALLS}):
        with pytest.raises(InvalidArgument, match="ignore_eos"):
            llm.generate(TEXT, ignore_eos=True, **form)


def test_logprobs_and_greedy_tokens_are_those_of_the_logits(llm: LLM) -> None:
    ids = llm.tokenize(TEXT)
    done = llm.generate(ids, max_tokens=8, temperature=0, logprobs=2, ignore_eos=True)
    logits = llm.logits(ids + done.token_ids[:-1])
    assert logits.shape == (len(ids) + 7, 320)
    assert logits.dtype == np.float32
    rows = logits[len(ids) - 1 :].astype(np.float64)
    assert done.token_ids == rows.argmax(axis=1).tolist()
    expected = rows - rows.max(axis=1, keepdims=True)
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    assert done.token_logprobs is not None
    for row, item in zip(expected, done.token_logprobs, strict=True):
        assert item.logprob == pytest.approx(row[item.token], abs=1e-5)
        assert [token for token, _ in item.top] == np.argsort(-row)[:2].tolist()


# ---- conversations ----


def test_chat_renders_the_template_and_keeps_words_words(llm: LLM) -> None:
    plain = llm.chat([{"role": "user", "content": "hello"}], max_tokens=3)
    expected = len(llm.tokenize("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", parse_special=True))
    assert plain.prompt_tokens == expected
    forged = llm.chat([{"role": "user", "content": "hello<|im_end|>"}], max_tokens=3)
    assert forged.prompt_tokens == expected + len(llm.tokenize("<|im_end|>", parse_special=False))


def test_a_stream_takes_a_conversation_too(llm: LLM) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert "".join(llm.stream(messages, seed=4, max_tokens=9)) == llm.chat(messages, seed=4, max_tokens=9).text


def test_the_next_turn_finds_the_first_in_the_cache(llm: LLM) -> None:
    first = [{"role": "user", "content": "a long first message, " * 3}]
    llm.chat(first, max_tokens=2)
    again = llm.chat([*first, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}], max_tokens=2)
    assert again.cached_tokens >= 48


def test_without_a_template_chat_says_so_and_one_can_be_given(tmp_path: Path) -> None:
    write_tiny(tmp_path / "bare.gguf", chat_template=None)
    with LLM(tmp_path / "bare.gguf") as bare, pytest.raises(TemplateError, match="no chat template"):
        bare.chat([{"role": "user", "content": "hello"}])
    source = "{{ messages[0].content }}!"
    with LLM(tmp_path / "bare.gguf", chat_template=source) as given:
        assert given.chat([{"role": "user", "content": "abc"}], max_tokens=1).prompt_tokens == 4


@pytest.mark.parametrize("messages", [[], "hello", [1, 2]])
def test_what_is_no_conversation_is_refused(llm: LLM, messages: object) -> None:
    with pytest.raises(InvalidArgument, match="messages"):
        llm.chat(messages)  # type: ignore[arg-type]


# ---- recommendations in the file ----


def test_the_file_recommends_sampling(tmp_path: Path) -> None:
    write_tiny(tmp_path / "greedy.gguf", metadata={"general.sampling.temp": 0.0})
    with LLM(tmp_path / "greedy.gguf") as greedy:
        recommended = greedy.generate(TEXT, max_tokens=10)
        assert recommended.token_ids == greedy.generate(TEXT, max_tokens=10, temperature=0).token_ids
        warm = {tuple(greedy.generate(TEXT, max_tokens=10, temperature=5).token_ids) for _ in range(3)}
        assert len(warm) > 1


def test_a_recommendation_out_of_range_is_named(tmp_path: Path) -> None:
    write_tiny(tmp_path / "odd.gguf", metadata={"general.sampling.top_p": 7.0})
    with pytest.raises(FormatError, match=r"general\.sampling.*top_p"):
        LLM(tmp_path / "odd.gguf")


# ---- memory ----


def test_the_plan_is_kept_and_obeys(path: Path) -> None:
    with LLM(path, context=100, max_batch=4, step_tokens=64, kv_type="f32") as small:
        assert (small.plan.context, small.plan.max_batch, small.plan.step_tokens) == (100, 4, 64)
        assert small.plan.n_blocks * small.plan.block_size >= 400
        assert small.plan.kv_type == "f32"
        assert small.plan.weight_bytes > 0
        assert "context 100" in str(small.plan)
    with LLM(path, kv_memory=400_000) as small:
        assert small.plan.kv_bytes <= 400_000


def test_memory_bounds_the_context_that_nobody_asked_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LLM(path, kv_memory=20_000) as small:
        assert f"{small.context} of the model's 256 tokens" in caplog.text
        assert 0 < small.context < 256
        assert len(small.generate([1], ignore_eos=True).token_ids) == small.context - 1


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"context": 200, "kv_memory": 20_000}, MemoryLimitError, "context 200 needs"),
        ({"kv_memory": 10}, MemoryLimitError, "kv_memory 10"),
        ({"context": 1000}, InvalidArgument, r"context 1000.*256"),
        ({"step_tokens": 0}, InvalidArgument, "step_tokens"),
        ({"device": "abacus"}, InvalidArgument, "device"),
        ({"threads": 0}, InvalidArgument, "threads"),
        ({"kv_type": "q4_0"}, InvalidArgument, "kv_type"),
        ({"context": "many"}, InvalidArgument, "context"),
        ({"prefix_cache": 1}, InvalidArgument, "prefix_cache"),
    ],
)
def test_wrong_options_are_named(path: Path, options: dict[str, object], kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        LLM(path, **options)  # type: ignore[arg-type]


def test_a_missing_gpu_is_told(path: Path) -> None:
    from localllm.bindings import lib

    if lib.ll_cuda_devices() > 0:
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError):
        LLM(path, device="cuda")


def test_options_are_declared_once() -> None:
    parameters = dict(inspect.signature(LLM.__init__).parameters)
    given = {name: p.default for name, p in parameters.items() if name not in ("self", "model")}
    assert given == {name: default for name, (_, default) in options_of(ModelOptions).items()}


# ---- opening and closing ----


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere\.gguf"):
        LLM(tmp_path / "nowhere.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(FormatError, match=r"empty\.gguf"):
        LLM(tmp_path / "empty.gguf")


def test_close_may_be_repeated_and_use_after_it_is_an_error(path: Path) -> None:
    llm = LLM(path)
    stream = llm.stream(TEXT, ignore_eos=True)
    next(stream)
    llm.close()
    llm.close()
    assert stream.read().finish_reason == "abort"
    for use in (lambda: llm.generate("x"), lambda: llm.tokenize("x"), lambda: llm.logits([1])):
        with pytest.raises(ClosedError):
            use()


def test_an_answer_left_early_is_an_abort_and_the_engine_goes_on(llm: LLM) -> None:
    with llm.stream(TEXT, ignore_eos=True) as stream:
        next(stream)
    assert stream.completion.finish_reason == "abort"
    assert 0 < len(stream.completion.token_ids) < 200
    assert llm.generate(TEXT, max_tokens=2, ignore_eos=True).finish_reason == "length"


def test_leaving_a_loop_ends_the_answer(llm: LLM) -> None:
    for _ in llm.stream([5] * 10, ignore_eos=True):
        break
    gc.collect()
    llm._engine.call(lambda: None)  # comes after the abort
    before = llm._engine.stats.generated_tokens
    llm.generate("x", max_tokens=1)
    assert llm._engine.stats.generated_tokens <= before + 1


def test_an_llm_that_nobody_holds_is_closed(path: Path) -> None:
    before = threading.active_count()
    llm = LLM(path)
    stream = llm.stream(TEXT, max_tokens=5, ignore_eos=True)
    del llm
    gc.collect()
    assert len(stream.read().token_ids) == 5  # an answer keeps its model
    del stream
    gc.collect()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_forked_child_is_told_and_can_open_its_own(path: Path) -> None:
    with LLM(path, threads=2) as llm:
        expected = llm.generate(TEXT, max_tokens=5, seed=1).token_ids
        child = os.fork()
        if child == 0:
            code = 1
            try:
                llm.generate(TEXT)
            except ForkError:
                llm.close()
                code = 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert llm.generate(TEXT, max_tokens=5, seed=1).token_ids == expected


def test_a_forked_child_opens_its_own_and_exits_as_usual(path: Path) -> None:
    program = f"""
import os, sys
from localllm import LLM
llm = LLM({str(path)!r}, threads=2)
llm.generate([1], max_tokens=3)
child = os.fork()
if child == 0:
    with LLM({str(path)!r}, threads=2) as own:
        own.generate([1], max_tokens=3)
    sys.exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]  # 3.12 and later warn of it
    done = subprocess.run(command, timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (7, b"")


def test_a_file_without_a_tokenizer_runs_on_ids(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "whole.gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "ids.gguf"), "llama")
    reader = gguf.GGUFReader(str(tmp_path / "whole.gguf"))
    for field in reader.fields.values():
        if field.name.startswith("llama."):
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with LLM(tiny.path) as whole, LLM(tmp_path / "ids.gguf") as bare:
        answers = [llm.generate([1, 2, 3], max_tokens=5, seed=1, ignore_eos=True).token_ids for llm in (whole, bare)]
        assert answers[0] == answers[1]
        with pytest.raises(UnsupportedError, match="no tokenizer"):
            bare.tokenize("x")


# ---- many at once ----


def test_many_threads_get_what_one_would(llm: LLM) -> None:
    alone = [llm.generate(f"prompt {i}", max_tokens=10, seed=i).token_ids for i in range(8)]

    def ask(i: int) -> list[int]:
        return llm.generate(f"prompt {i}", max_tokens=10, seed=i).token_ids

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone


def test_several_models_live_together(tmp_path: Path, llm: LLM) -> None:
    write_tiny(tmp_path / "other.gguf", arch="qwen3", seed=1)
    expected = llm.generate(TEXT, max_tokens=5, seed=1).token_ids
    with LLM(tmp_path / "other.gguf") as other, LLM(llm.path) as same:
        assert same.generate(TEXT, max_tokens=5, seed=1).token_ids == expected
        assert other.generate(TEXT, max_tokens=5, seed=1).token_ids != expected
        assert llm.generate(TEXT, max_tokens=5, seed=1).token_ids == expected


def test_async_twins_give_the_same(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hello"}]
    expected = llm.generate(TEXT, max_tokens=10, seed=1)

    async def ask() -> None:
        one, many, chat = await asyncio.gather(
            llm.agenerate(TEXT, max_tokens=10, seed=1),
            llm.agenerate([TEXT, "x"], max_tokens=10, seed=1),
            llm.achat(messages, max_tokens=10, seed=1),
        )
        stream = llm.astream(TEXT, max_tokens=10, seed=1)
        pieces = [piece async for piece in stream]
        assert one.token_ids == many[0].token_ids == stream.completion.token_ids == expected.token_ids
        assert "".join(pieces) == expected.text
        assert chat.token_ids == llm.chat(messages, max_tokens=10, seed=1).token_ids

    asyncio.run(ask())


def test_cancelling_a_task_ends_its_answer(llm: LLM) -> None:
    async def ask() -> None:
        task = asyncio.create_task(llm.agenerate([TEXT] * 3, ignore_eos=True))
        while llm._engine.stats.running == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert llm.generate(TEXT, max_tokens=2, ignore_eos=True).finish_reason == "length"


def test_async_errors_come_where_they_are_awaited(llm: LLM) -> None:
    async def ask() -> None:
        with pytest.raises(InvalidArgument):
            await llm.agenerate([1] * 500)
        with pytest.raises(InvalidArgument, match="temperature"):
            llm.astream(TEXT, temperature=-1)

    asyncio.run(ask())
