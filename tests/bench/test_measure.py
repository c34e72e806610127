"""The bench on a tiny model: what its tests compute, and what they say they read and multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.bench.measure import Bench, Case, Result, opened
from localllm.bench.roof import Roof
from localllm.bench.table import profile_table, results_table
from localllm.config import DeviceOptions
from localllm.engine.runner import Runner
from localllm.engine.sequence import Row, Sampled
from localllm.errors import InvalidArgument, MemoryLimitError
from tests.tiny_models import Tiny, write_tiny

ONE = DeviceOptions(threads=1)
Steps = list[list[tuple[int, int]]]  # (start, count) of every row


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return write_tiny(tmp_path_factory.mktemp("bench") / "tiny.gguf")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """What every step of any runner computed."""
    seen: Steps = []
    real = Runner.step

    def step(self: Runner, rows: list[Row]) -> list[Sampled]:
        seen.append([(row.start, row.count) for row in rows])
        return real(self, rows)

    monkeypatch.setattr(Runner, "step", step)
    return iter([seen])


def run(tiny: Tiny, test: Case, repeats: int = 2) -> Result:
    with opened(tiny.path, [test], ONE) as bench:
        return bench.run(test, repeats)


def test_a_prompt_is_computed_whole_each_time(tiny: Tiny, steps: Iterator[Steps]) -> None:
    result = run(tiny, Case("prefill", 100))
    assert next(steps) == [[(0, 100)]] * 3  # a warm-up and two
    assert [repeat.tokens for repeat in result.repeats] == [100, 100]


@pytest.mark.parametrize("depth", [0, 1, 16, 17, 40, 100])
def test_decoding_begins_at_its_depth(tiny: Tiny, steps: Iterator[Steps], depth: int) -> None:
    result = run(tiny, Case("decode", 5, batch=3, depth=depth))
    seen = next(steps)
    expected = [[(depth + i, 1)] * 3 for i in range(5)]
    assert seen[-5:] == expected
    starts = [i for i in range(len(seen)) if seen[i : i + 5] == expected]
    assert len(starts) == 3
    filled = sum(count for step in seen[: starts[0]] for _, count in step)
    assert filled >= 3 * depth
    between = seen[starts[0] + 5 : starts[1]]  # at most the last block of the depth again, and all rows in one step
    assert len(between) == (depth > 0) and all(count <= 16 for step in between for _, count in step)
    assert [(repeat.tokens, repeat.steps) for repeat in result.repeats] == [(15, 5)] * 2


def weights_of_layers(tiny: Tiny) -> int:
    return sum(w.size for name, w in tiny.weights.items() if name.startswith("blk.") and w.ndim == 2)


def test_work_is_counted(tiny: Tiny) -> None:
    """Against the sizes of the matrices, which numpy tells."""
    config, head = tiny.config, tiny.weights["output.weight"].size
    width = config["heads"] * config["head_dim"]
    prompt = {op.operation: op for op in run(tiny, Case("prefill", 30), 1).repeats[0].work}
    attention = 2 * config["layers"] * width * sum(range(1, 31))
    assert prompt["attend"].multiply_adds == attention
    total = sum(op.multiply_adds for op in prompt.values())
    last = f"blk.{config['layers'] - 1}."
    once = sum(tiny.weights[f"{last}{name}.weight"].size for name in ("attn_output", "ffn_gate", "ffn_up", "ffn_down"))
    assert total == 30 * (weights_of_layers(tiny) - once) + once + head + attention  # once: of the sampled token alone
    kv = 2 * config["layers"] * config["kv_heads"] * config["head_dim"] * 2  # bytes of a token, half precision
    decode = {op.operation: op for op in run(tiny, Case("decode", 4, batch=2, depth=20), 1).repeats[0].work}
    assert decode["attend"].bytes == 2 * kv * (21 + 22 + 23 + 24)
    embedding = 4 * 2 * 4 * config["embd"]
    read = sum(op.bytes for op in decode.values())
    assert read == 4 * 4 * (weights_of_layers(tiny) + head) + decode["attend"].bytes + embedding
    assert decode["norm_qkv"].calls == decode["linear_add (o)"].calls == 4 * config["layers"]
    assert decode["sampling"].calls == 4


def test_native_time_is_part_of_the_whole(tiny: Tiny) -> None:
    for repeat in run(tiny, Case("decode", 20, batch=4), 3).repeats:
        assert 0 < repeat.native_seconds < repeat.seconds


def test_results_and_their_tables(tiny: Tiny) -> None:
    result = run(tiny, Case("decode", 8), 3)
    one = result.as_dict(Roof(read_gb_s=10.0, int8_tops=1.0))
    speed = one["tokens_per_second"]
    assert speed["min"] <= speed["median"] <= speed["max"]
    typical = result.typical
    read = sum(op.bytes for op in typical.work) / typical.seconds
    adds = sum(op.multiply_adds for op in typical.work) / typical.seconds
    assert one["gb_s"] == pytest.approx(read / 1e9)
    assert one["share_of_roof"] == pytest.approx(max(read / 10e9, 2 * adds / 1e12))
    assert one["scheduler_us_per_step"] > 0
    assert result.as_dict(Roof())["share_of_roof"] is None
    lines = results_table([one]).splitlines()
    assert lines[0].startswith("test") and lines[1].startswith("decode 8")
    shown = profile_table(result)
    assert all(name in shown for name in ("embed", "norm_glu", "linear_add (down)", "sampling", "python"))


def test_too_long_a_test_is_named(tiny: Tiny) -> None:
    with pytest.raises(
        InvalidArgument, match=r"decode of 64 tokens, batch 1, depth 500: needs a context of 564 .* 512"
    ):
        run(tiny, Case("decode", 64, depth=500))
    with (
        pytest.raises(InvalidArgument, match=r"prefill of 101 tokens: .* that of --context is 100"),
        opened(tiny.path, [Case("prefill", 101)], DeviceOptions(context=100)),
    ):
        pass
    assert run(tiny, Case("decode", 12, depth=500), 1).repeats[0].tokens == 12


def test_no_room_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Case("decode", 64, batch=40)
    with opened(tiny.path, [crowd], ONE) as bench:
        plan = bench.plan
    block = plan.kv_bytes // plan.n_blocks
    free = plan.weight_bytes + plan.scratch_bytes + crowd.blocks * block  # half of what is left after the weights
    monkeypatch.setattr("localllm.plan.free_memory", lambda: free)
    words = r"batch 40, depth 0: needs .* of KV cache, but there is room for"
    with pytest.raises(MemoryLimitError, match=words), opened(tiny.path, [crowd], ONE):
        pass


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_every_batch_fits_its_pool(tiny: Tiny, batch: int) -> None:
    """The pool has no block too few to admit all rows at once."""
    for test in (Case("decode", 1, batch), Case("decode", 1, batch, 16), Case("decode", 17, batch, 31)):
        result = run(tiny, test, 3)
        assert {repeat.tokens for repeat in result.repeats} == {batch * test.tokens}


def test_a_bench_closes(tiny: Tiny) -> None:
    with opened(Path(tiny.path), [Case("prefill", 4)], ONE) as bench:
        assert isinstance(bench, Bench) and bench.threads == 1
    assert not bench.close.alive
