"""The promise of the core: a token's logits depend on its own sequence and on nothing else, to the last bit.

Here at the level of steps, where block numbers, chunks and neighbours can be chosen freely; tests/engine and
tests/test_llm.py show the same of whole requests.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import platform
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.bindings import lib
from localllm.errors import InvalidArgument
from tests.model.stepper import Stepper
from tests.model.test_logits import random_tokens
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.every_level

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
         "IQ4_NL", "IQ4_XS")  # fmt: skip


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", TYPES)
def test_chunks_blocks_threads_and_neighbours_change_no_bit(tmp_path: Path, dtype: str) -> None:
    arch = ("llama", "qwen2", "qwen3")[TYPES.index(dtype) % 3]
    write_tiny(tmp_path / "m.gguf", arch=arch, embd=256, heads=8, kv_heads=2, ff=512, dtype=dtype)
    tokens = random_tokens(75)
    with Stepper(tmp_path / "m.gguf") as stepper:
        alone = stepper.logits(tokens)
        for chunk in (1, 7, 64):
            assert same_bits(alone, stepper.logits(tokens, chunk, blocks=[33, 2, 17]))
    with Stepper(tmp_path / "m.gguf", threads=2) as stepper:
        assert same_bits(alone, stepper.logits(tokens, 33))
        assert same_bits(alone, crowd(stepper, tokens, neighbours=7))


def crowd(stepper: Stepper, tokens: list[int], neighbours: int) -> np.ndarray:
    """The sequence in the middle of others whose chunks differ, so that each step mixes prefill and decode."""
    others = [random_tokens(75, seed=100 + i) for i in range(neighbours)]
    sequences = [*others[: neighbours // 2], tokens, *others[neighbours // 2 :]]
    chunks = [1 + 5 * i % 11 for i in range(len(sequences))]
    mine, done, parts = neighbours // 2, [0] * len(sequences), []
    while done[mine] < len(tokens):
        rows, samples, count = [], [], 0
        for i, sequence in enumerate(sequences):
            take = min(chunks[i], len(sequence) - done[i])
            if take == 0:
                continue
            rows.append((sequence[done[i] : done[i] + take], done[i], [3 * i + 2, 3 * i, 3 * i + 1]))
            if i == mine:
                samples = list(range(count, count + take))
            done[i] += take
            count += take
        parts.append(stepper.step(rows, samples))
    return np.concatenate(parts)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another processor's floats are not set up by the library")
def test_a_program_that_rounds_upwards_changes_no_bit(tmp_path: Path) -> None:
    """At positions far from 0, where rotations are not exact."""
    write_tiny(tmp_path / "m.gguf", dtype="Q8_0")
    tokens = random_tokens(60)
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    with Stepper(tmp_path / "m.gguf") as stepper:
        usual = stepper.logits(tokens)
        assert libm.fesetround(0x800) == 0
        try:
            upwards = stepper.logits(tokens)
            stepper.begin([(tokens, 0, [5, 7])])
            passed = stepper.advance(math.inf)
        finally:
            libm.fesetround(0)
    assert same_bits(usual, upwards) and same_bits(usual, passed)


@pytest.mark.parametrize("dtype", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_pass_that_is_suspended_after_every_layer(tmp_path: Path, dtype: str, layers: int) -> None:
    write_tiny(tmp_path / "m.gguf", embd=256, heads=8, kv_heads=2, ff=512, dtype=dtype, layers=layers)
    assert_suspended_passes_are_whole_ones(tmp_path / "m.gguf")


def assert_suspended_passes_are_whole_ones(
    path: Path, device: int = lib.LL_CPU, lengths: tuple[int, ...] = (75, 40, 90)
) -> None:
    """Two rows, computed a layer at a time between steps of two others, one of them longer than the pass."""
    first, second, third, other = (random_tokens(n, seed=n) for n in (*lengths, 6))
    with Stepper(path, threads=2, device=device) as stepper:
        alone = [stepper.logits(tokens) for tokens in (first, second, third, other)]
        last = [len(first) - 1, len(first) + len(second) - 1]
        for samples in (last, list(range(last[-1] + 1))):
            stepper.begin([(first, 0, [5, 3, 9]), (second, 0, [4, 20])], samples)
            passed, advances, other_parts = None, 0, []
            while passed is None:
                other_parts.append(stepper.step([(other[advances : advances + 1], advances, [30])]))
                assert same_bits(alone[2], stepper.step([(third, 0, [40, 41, 42])]))
                passed = stepper.advance()
                advances += 1
            assert advances == stepper.info.n_layers + 1, "a layer each time, and the head"
            assert same_bits(np.concatenate(alone[:2])[samples], passed)
            assert same_bits(alone[3][: len(other_parts)], np.concatenate(other_parts))
        stepper.begin([(first, 0, [5, 3, 9])])
        stepper.advance()
        stepper.begin([(second, 0, [4, 20])])  # in its place
        assert same_bits(alone[1], stepper.advance(math.inf))
        with pytest.raises(InvalidArgument, match="no batch has been begun"):
            stepper.advance()


@pytest.mark.parametrize("kv_type", ["f16", "bf16", "f32", "q8_0"])
@pytest.mark.parametrize("window", [0, 24])
def test_kv_types_and_windows(tmp_path: Path, kv_type: str, window: int) -> None:
    write_tiny(tmp_path / "m.gguf", head_dim=32, sliding_window=window, dtype="Q8_0")
    tokens = random_tokens(100)
    with Stepper(tmp_path / "m.gguf", kv_type=kv_type) as stepper:
        alone = stepper.logits(tokens)
        assert same_bits(alone, stepper.logits(tokens, 9, blocks=[8, 1, 12, 4]))


def test_a_shared_prefix_is_as_good_as_an_own_one(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.gguf", dtype="Q8_0")
    tokens = random_tokens(96)
    with Stepper(tmp_path / "m.gguf") as stepper:
        alone = stepper.logits(tokens, blocks=[0, 1, 2])
        shared = stepper.step([(tokens[64:], 64, [0, 1, 40])])
        assert same_bits(alone[64:], shared)


@pytest.mark.parametrize("kv_type", ["f16", "bf16", "f32", "q8_0"])
def test_what_is_not_finite_reaches_the_logits(tmp_path: Path, kv_type: str) -> None:
    """A NaN ends the request that met it, so no KV type may turn it into a number."""
    path = tmp_path / "m.gguf"
    write_tiny(path, head_dim=32)
    table = next(t for t in gguf.GGUFReader(path, "r+").tensors if t.name == "token_embd.weight")
    table.data[7, 3] = np.nan
    del table
    tokens = [token if token != 7 else 8 for token in random_tokens(40)]
    with Stepper(path, kv_type=kv_type) as stepper:
        assert np.isfinite(stepper.logits(tokens)).all()
        hurt = stepper.logits([*tokens[:20], 7, *tokens[20:]])
        assert np.isfinite(hurt[:20]).all() and np.isnan(hurt[20:]).any(axis=1).all()
