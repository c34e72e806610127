"""The promise to users: a request's tokens and logprobs are the same bits alone and in a crowd.

Whole requests through LLM, each kind of disturbance against the same request alone; nothing is run twice until it
agrees. tests/model/test_bit_identity.py shows the same of single steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localllm import LLM
from localllm.engine.engine import Stats
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.every_level

MODELS: dict[str, dict[str, Any]] = {
    "llama Q4_K": {"arch": "llama", "dtype": "Q4_K"},
    "qwen2 Q8_0": {"arch": "qwen2", "dtype": "Q8_0"},
    "qwen3 F16": {"arch": "qwen3", "dtype": "F16"},
}
SAMPLING: dict[str, Any] = {"temperature": 0.9, "seed": 7, "logprobs": 3, "ignore_eos": True}
Bits = tuple[tuple[int, ...], bytes]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bits") / "m.gguf"
    write_tiny(path, embd=256, heads=8, kv_heads=4, ff=256, **MODELS[request.param])
    return path


def prompts(count: int) -> list[list[int]]:
    """Of 3 to 150 tokens; the first is 100 long and the one whose bits are compared."""
    rng = np.random.default_rng(5)
    lengths = [100, *rng.integers(3, 150, 31)]
    return [rng.integers(0, 256, length).tolist() for length in lengths][:count]


def answer(llm: LLM, batch: list[list[int]], tokens: int = 40, greedy: bool = False) -> list[Bits]:
    """The bits of each answer: its tokens, and every logprob that was asked for."""
    how = {**SAMPLING, "temperature": 0} if greedy else SAMPLING
    found = []
    for completion in llm.generate(batch, max_tokens=tokens, **how):
        logprobs = completion.token_logprobs
        assert logprobs is not None and len(completion.token_ids) == tokens
        numbers = [value for item in logprobs for value in (item.logprob, *(top for _, top in item.top))]
        found.append((tuple(completion.token_ids), np.array(numbers, np.float32).tobytes()))
    return found


@pytest.fixture(scope="module")
def alone(model: Path) -> Iterator[dict[bool, list[Bits]]]:
    """Each of 32 requests by itself: one thread, no cache, the whole prompt in one step. By `greedy`."""
    with LLM(model, threads=1, prefix_cache=False, max_batch=1, context=256) as llm:
        yield {greedy: [answer(llm, [p], greedy=greedy)[0] for p in prompts(32)] for greedy in (False, True)}


@pytest.mark.parametrize("batch", [2, 8, 32])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches(model: Path, alone: dict[bool, list[Bits]], batch: int, threads: int) -> None:
    with LLM(model, threads=threads, context=256) as llm:
        assert answer(llm, prompts(batch)) == alone[False][:batch]
        assert answer(llm, prompts(batch), greedy=True) == alone[True][:batch]


@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_prefill_chunks(model: Path, alone: dict[bool, list[Bits]], chunk: int) -> None:
    with LLM(model, threads=2, context=256, max_batch=1, step_tokens=chunk) as llm:
        assert answer(llm, prompts(2)) == alone[False][:2]


@pytest.mark.parametrize("chunk", [32, 39, 96])
def test_prefill_chunks_beside_decoding(model: Path, alone: dict[bool, list[Bits]], chunk: int) -> None:
    with LLM(model, threads=2, context=256, step_tokens=chunk) as llm:
        assert answer(llm, prompts(32)) == alone[False]


def test_a_prefix_hit_and_a_miss(model: Path, alone: dict[bool, list[Bits]]) -> None:
    with LLM(model, threads=2, context=256) as llm:
        batch = prompts(4)
        assert answer(llm, batch) == alone[False][:4]
        assert answer(llm, batch) == alone[False][:4]
        assert llm.generate(batch[0], max_tokens=1).cached_tokens >= 80


def test_a_prefix_shared_while_it_runs(model: Path, alone: dict[bool, list[Bits]]) -> None:
    first = prompts(1)[0]
    with LLM(model, threads=2, context=256, step_tokens=48) as llm:
        assert answer(llm, [first] * 8) == [alone[False][0]] * 8


def test_the_next_turn(model: Path) -> None:
    """A prompt that goes on after an answer, where that answer was generated a moment ago and where it was not."""
    first = prompts(1)[0]
    with LLM(model, threads=2, context=256) as llm:
        told = answer(llm, [first], tokens=60)[0][0]
        found = answer(llm, [[*first, *told, 1, 2, 3]])
    with LLM(model, threads=1, context=256, prefix_cache=False) as llm:
        assert answer(llm, [[*first, *told, 1, 2, 3]]) == found


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preemption(model: Path, prefix_cache: bool) -> None:
    """Short prompts with long answers in a pool of 20 blocks: many start, grow, and are preempted. A sequence here has
    at most 4 full blocks, so 80 recomputed blocks are at least 20 preemptions that each lost a full block."""
    batch = [prompt[:6] for prompt in prompts(32)]
    with LLM(model, threads=1, prefix_cache=False, max_batch=1, context=256) as llm:
        want = [answer(llm, [prompt], tokens=60)[0] for prompt in batch]
    with LLM(model, threads=2, context=256, kv_memory=kv_bytes(model, 20), prefix_cache=prefix_cache) as llm:
        for _ in range(8):
            assert answer(llm, batch, tokens=60) == want
            if stats(llm).recomputed_blocks >= 80:
                break
        assert stats(llm).preemptions >= 20 and stats(llm).recomputed_blocks >= 80


def kv_bytes(model: Path, blocks: int) -> int:
    with LLM(model, context=256, max_batch=1) as llm:
        return llm.plan.kv_bytes // llm.plan.n_blocks * blocks


def stats(llm: LLM) -> Stats:
    found: Stats = llm._engine.stats
    return found
