"""Attention over ranges of thousands of keys: against float64, and the promise that a token's bits depend on its own
sequence alone, where the range is split at fixed positions and the splits are shared out over threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from localllm.bindings import lib, text
from tests.conftest import LEVELS
from tests.model import reference
from tests.model.stepper import Stepper
from tests.model.test_logits import random_tokens, relative
from tests.tiny_models import write_tiny

pytestmark = pytest.mark.every_level

LONG = 2300  # three splits of 1024, the last one a part
KV_TYPES = {"f32": 2e-6, "f16": 5e-4, "bf16": 5e-3, "q8_0": 1e-2}
# Tiles of level amx have 16 bits of their operands; float32 keys and values take no tiles.
TILES = 2.0**-13


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def tables(rng: np.random.Generator, rows: int, blocks: int) -> list[list[int]]:
    """Block tables for `rows` sequences, scattered over a pool of rows * blocks."""
    order: list[list[int]] = rng.permutation(rows * blocks).reshape(rows, blocks).tolist()
    return order


@pytest.mark.parametrize(("kv_type", "bound"), KV_TYPES.items())
@pytest.mark.parametrize("window", [0, 700])
def test_long_rows_against_float64(tmp_path: Path, kv_type: str, bound: float, window: int) -> None:
    model = write_tiny(tmp_path / "m.gguf", head_dim=32, layers=1, context=4096, sliding_window=window)
    tokens = random_tokens(LONG)
    with Stepper(model.path, kv_type=kv_type, threads=2, n_blocks=80) as stepper:
        assert relative(stepper.logits(tokens), reference.logits(model, tokens)) < bound


@pytest.mark.parametrize("head_dim", [2, 16, 20, 48, 64, 80, 96, 128, 160])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (8, 1), (20, 1)])
def test_head_sizes_and_groups(tmp_path: Path, head_dim: int, heads: tuple[int, int]) -> None:
    """Columns of sixteen queries hold parts of a token's heads, and heads of several tokens."""
    shape = {"heads": heads[0], "kv_heads": heads[1], "head_dim": head_dim, "layers": 1}
    model = write_tiny(tmp_path / "m.gguf", **shape)
    tokens = random_tokens(150)
    with Stepper(model.path, threads=2, block_size=16) as stepper:
        alone = stepper.logits(tokens)
        assert relative(alone, reference.logits(model, tokens)) < KV_TYPES["f16"]
        assert same_bits(alone, stepper.logits(tokens, chunk=11, blocks=list(range(20, 30))))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "f32"])
@pytest.mark.parametrize("window", [0, 700])
def test_one_token_alone_gets_the_bits_it_gets_in_a_prefill(tmp_path: Path, kv_type: str, window: int) -> None:
    """Decoding at the borders of spans and splits, by one thread and by more than there are KV heads."""
    write_tiny(tmp_path / "m.gguf", head_dim=64, heads=4, kv_heads=1, context=4096, sliding_window=window)
    tokens, rng = random_tokens(LONG), np.random.default_rng(3)
    with Stepper(tmp_path / "m.gguf", kv_type=kv_type, n_blocks=300) as stepper:
        alone = stepper.logits(tokens)
    for threads in (1, 7):
        with Stepper(tmp_path / "m.gguf", kv_type=kv_type, threads=threads, n_blocks=300) as stepper:
            mine, other = tables(rng, 2, 80)
            assert same_bits(alone, stepper.logits(tokens, chunk=509, blocks=mine))
            stepper.logits(random_tokens(LONG, seed=9), blocks=other)
            for at in (0, 1, 63, 64, 699, 700, 1023, 1024, 1025, 2047, 2048, LONG - 1):
                got = stepper.step([(tokens[at : at + 1], at, mine)])
                assert same_bits(alone[at : at + 1], got), (threads, at)
                both = stepper.step([([5] * 40, 1500, other), (tokens[at : at + 1], at, mine)], samples=[40])
                assert same_bits(alone[at : at + 1], both), (threads, at, "with a neighbour")


@pytest.mark.parametrize("kv_type", ["f16", "bf16", "f32", "q8_0"])
@pytest.mark.parametrize("window", [0, 24])
def test_what_a_token_does_not_see_never_enters(tmp_path: Path, kv_type: str, window: int) -> None:
    """Blocks full of NaN from another sequence, and NaN in a row behind a token or before its window."""
    path = tmp_path / "m.gguf"
    write_tiny(path, head_dim=32, layers=1, heads=6, kv_heads=2, sliding_window=window)
    table = next(t for t in gguf.GGUFReader(path, "r+").tensors if t.name == "token_embd.weight")
    table.data[7, :] = np.nan
    del table
    tokens = [token if token != 7 else 8 for token in random_tokens(100)]
    with Stepper(path, kv_type=kv_type) as stepper:
        alone = stepper.logits(tokens, blocks=[0, 1, 2, 3])
        assert np.isfinite(alone).all()
        stepper.logits([7] * 128, blocks=[4, 5, 6, 7])
        assert same_bits(alone, stepper.logits(tokens, blocks=[6, 4, 7, 5]))
        hurt = stepper.logits([*tokens[:50], 7, *tokens[51:]], blocks=[8, 9, 10, 11])
        assert same_bits(hurt[:50], alone[:50])
        seen = 50 + window if window else 100
        assert np.isnan(hurt[50:seen]).all() and np.isfinite(hurt[seen:]).all()
        for chunk in (1, 13):
            again = stepper.logits([*tokens[:50], 7, *tokens[51:]], chunk, blocks=[12, 13, 14, 15])
            assert same_bits(again[:50], hurt[:50]) and same_bits(again[seen:], hurt[seen:])


@pytest.mark.parametrize("kv_type", ["f16", "bf16", "f32", "q8_0"])
def test_levels_agree(tmp_path: Path, kv_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, but for tiles."""
    shape: dict[str, Any] = {"head_dim": 64, "heads": 8, "kv_heads": 2, "layers": 1, "context": 2048}
    write_tiny(tmp_path / "m.gguf", **shape)
    tokens, found = random_tokens(1100), {}
    for level in LEVELS:
        monkeypatch.setenv("LOCALLLM_CPU", level)
        if text(lib.ll_cpu_level()) != level:
            break
        with Stepper(tmp_path / "m.gguf", kv_type=kv_type) as stepper:
            found[level] = stepper.logits(tokens)
    for level, logits in found.items():
        if level == "amx" and kv_type != "f32":
            assert relative(logits, found["scalar"]) < TILES
        else:
            assert same_bits(logits, found["scalar"]), level
