"""The real runner on a tiny random model: what it draws is compared with its own logits, worked out by numpy."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localllm.bindings import check, ffi, lib
from localllm.engine.block_manager import BlockManager
from localllm.engine.engine import Engine, Handle
from localllm.engine.runner import Runner, RunnerConfig
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import Row, Sampled, Sequence
from localllm.errors import InvalidArgument
from localllm.modelfile import ModelFile
from localllm.params import SamplingParams
from tests.model.stepper import Stepper
from tests.model.test_logits import random_tokens
from tests.tiny_models import write_tiny

GREEDY = SamplingParams(temperature=0, logprobs=3)
CONTEXT = 96


@dataclass
class Model:
    handle: Any
    n_vocab: int = 320

    def runner(self, n_blocks: int = 64, max_tokens: int = 64, max_rows: int = 8, max_samples: int = 16) -> Runner:
        sizes = {"n_blocks": n_blocks, "max_tokens": max_tokens, "max_rows": max_rows, "max_samples": max_samples}
        return Runner(self.handle, RunnerConfig(context=CONTEXT, block_size=16, threads=1, **sizes))

    def engine(self, n_blocks: int = 64, step_tokens: int = 64, prefix_cache: bool = True) -> Engine:
        scheduler = Scheduler(BlockManager(n_blocks, 16, prefix_cache), max_rows=8)
        return Engine(self.runner(n_blocks), scheduler, context=CONTEXT, step_tokens=step_tokens)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path: Path = tmp_path_factory.mktemp("runner") / "tiny.gguf"
    write_tiny(path)
    file = ModelFile(str(path))
    out = ffi.new("ll_model **")
    check(lib.ll_model_open(out, file.handle))
    yield Model(out[0])
    lib.ll_model_close(out[0])
    file.close()


def sequence(tokens: list[int], blocks: list[int], params: SamplingParams = GREEDY, seed: int = 0) -> Sequence:
    seq = Sequence(array("i", tokens), params, max_length=CONTEXT, seed=seed)
    seq.blocks.extend(blocks)
    return seq


def log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = logits.astype(np.float64)
    top = wide.max(-1, keepdims=True)
    result: np.ndarray[Any, Any] = wide - top - np.log(np.exp(wide - top).sum(-1, keepdims=True))
    return result


PROMPTS = [list(range(3, 3 + n)) for n in (1, 17, 30)]


def test_greedy_takes_the_likeliest_and_reports_its_logprob(model: Model) -> None:
    runner = model.runner()
    rows = [Row(sequence(p, [2 * i, 2 * i + 1]), 0, len(p), True) for i, p in enumerate(PROMPTS)]
    drawn = runner.step(rows)
    for prompt, sampled in zip(PROMPTS, drawn, strict=True):
        logits = runner.logits(array("i", prompt), [9, 8, 7])
        assert logits.shape == (len(prompt), model.n_vocab)
        expected = log_softmax(logits[-1])
        order = np.argsort(-expected, kind="stable")[:3]
        assert sampled.token == order[0]
        assert sampled.logprob == pytest.approx(expected[order[0]], abs=1e-5)
        assert [token for token, _ in sampled.top] == order.tolist()
        assert [value for _, value in sampled.top] == pytest.approx(expected[order], abs=1e-5)


def test_only_rows_that_sample_yield_a_token(model: Model) -> None:
    runner = model.runner()
    first, second = sequence(PROMPTS[2], [0, 1]), sequence(PROMPTS[1], [2, 3])
    whole = runner.step([Row(first, 0, 30, True)])
    assert len(runner.step([Row(first, 0, 20, False), Row(second, 0, 17, True)])) == 1
    assert runner.step([Row(first, 20, 10, True)]) == whole
    assert runner.step([Row(first, 20, 10, False)]) == []


def test_a_pass_draws_what_a_step_does(model: Model) -> None:
    runner = model.runner()
    rows = [Row(sequence(p, [2 * i, 2 * i + 1]), 0, len(p), i != 1) for i, p in enumerate(PROMPTS)]
    whole = runner.step(rows)
    rows[2].seq.mask = Only(5, 7)
    masked = runner.step(rows)
    assert masked[1].token in (5, 7) and masked[0] == whole[0]
    alone = runner.step([Row(sequence(PROMPTS[1], [20, 21]), 0, 17, True)])
    runner.begin(rows)
    found, steps = runner.advance(0.0), 0
    while found is None:
        assert runner.step([Row(sequence(PROMPTS[1], [20, 21]), 0, 17, True)]) == alone
        found, steps = runner.advance(0.0), steps + 1
    assert found == masked and steps > 1
    runner.begin(rows)
    assert runner.advance(math.inf) == masked


def test_a_pass_stops_in_time(tmp_path: Path) -> None:
    """It goes on while there is time for another layer as long as the last."""
    write_tiny(tmp_path / "m.gguf", layers=12, embd=256, heads=8, kv_heads=2, ff=1024)
    tokens = random_tokens(400)
    with Stepper(tmp_path / "m.gguf") as stepper:

        def calls(seconds: float) -> int:
            stepper.begin([(tokens, 0, list(range(13)))], samples=[399])
            count = 1
            while stepper.advance(seconds) is None:
                count += 1
            return count

        times = []
        for _ in range(4):
            started = time.perf_counter()
            assert calls(0.0) == 13, "a layer each, and the head"
            times.append(time.perf_counter() - started)
        assert calls(10.0) == 1
        assert sorted(calls(min(times) / 3) for _ in range(5))[2] in range(2, 13)
        with pytest.raises(InvalidArgument, match="seconds: expected 0 or more, found nan"):
            stepper.begin([(tokens, 0, list(range(13)))])
            stepper.advance(math.nan)


def test_nothing_is_drawn_from_a_pass_that_is_not_done(model: Model) -> None:
    runner = model.runner()
    rows = [Row(sequence(PROMPTS[2], [0, 1]), 0, 30, True)]
    runner.step(rows)
    runner.begin(rows)
    assert runner.advance(0.0) is None
    with pytest.raises(InvalidArgument, match=r"sampling\.logits: expected 0 to -1"):
        runner._draw(runner._whole)


def test_bias_penalties_and_mask_reach_the_sampler(model: Model) -> None:
    runner = model.runner()

    def draw(params: SamplingParams, mask: Any = None, output: int = 0) -> int:
        seq = sequence(PROMPTS[1], [0, 1], params)
        seq.mask, seq.prompt_length = mask, len(seq.tokens) - output
        return runner.step([Row(seq, 0, 17, True)])[0].token

    free = draw(GREEDY)
    assert draw(SamplingParams(temperature=0, logit_bias={free: -1000.0})) != free
    assert draw(SamplingParams(temperature=0, logit_bias={77: 1000.0})) == 77
    disliked = SamplingParams(temperature=0, logit_bias={5: 50.0, 99: 20.0}, frequency_penalty=100)
    assert (draw(disliked, output=0), draw(disliked, output=17)) == (5, 99)
    repeated = SamplingParams(temperature=0, logit_bias={5: 50.0, 99: 20.0}, repeat_penalty=100)
    assert draw(repeated) == 99
    assert draw(GREEDY, Only(123)) == 123
    assert draw(GREEDY, Only()) == -1
    assert draw(GREEDY) == free, "a mask does not outlive its sequence"


class Only:
    """A mask that allows these tokens."""

    def __init__(self, *tokens: int) -> None:
        self.tokens = tokens

    def fill(self, bits: memoryview) -> None:
        bits[:] = bytes(len(bits))
        for token in self.tokens:
            bits[token // 8] |= 1 << token % 8

    def accept(self, token: int) -> None:
        assert token in self.tokens


def test_logits_come_in_chunks_of_any_size(model: Model) -> None:
    whole = model.runner(max_samples=64).logits(array("i", range(50)), [0, 1, 2, 3])
    parts = model.runner(max_samples=8, max_tokens=8).logits(array("i", range(50)), [7, 1, 3, 2])
    assert np.array_equal(whole, parts)
    assert np.isfinite(whole).all()


def test_a_batch_that_the_library_refuses_is_an_error(model: Model) -> None:
    with pytest.raises(InvalidArgument, match=r"batch\.tokens"):
        model.runner().step([Row(sequence([999999], [0]), 0, 1, True)])


def answers(engine: Engine, count: int, params: SamplingParams) -> list[list[Sampled]]:
    handles: list[Handle] = []
    for n in range(count):
        prompt = [*range(20), *range(n, n + 11)] if n % 2 else list(range(n, n + 5))
        handles.append(engine.submit(prompt, params, seed=n // 3, choice=n % 3))
    return [list(handle) for handle in handles]


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(logprobs=2, repeat_penalty=1.1, presence_penalty=0.3)])
def test_answers_do_not_depend_on_company_chunks_or_memory(model: Model, params: SamplingParams) -> None:
    found = []
    preemptions = 0
    for options in ({}, {"step_tokens": 1}, {"n_blocks": 7}, {"n_blocks": 7, "prefix_cache": False}):
        engine = model.engine(**options)  # type: ignore[arg-type]
        found.append(answers(engine, 12, params))
        preemptions += engine.stats.preemptions
        engine.close()
    alone = model.engine()
    found.append([])
    for n in range(12):
        prompt = [*range(20), *range(n, n + 11)] if n % 2 else list(range(n, n + 5))
        found[-1].append(list(alone.submit(prompt, params, seed=n // 3, choice=n % 3)))
    alone.close()
    assert preemptions > 10
    assert all(len(answer) > 60 for answer in found[0])
    assert all(other == found[0] for other in found[1:])
