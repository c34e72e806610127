"""The pace of prompts on simulated machines: answers wait no longer than the target, and prompts get on."""

from __future__ import annotations

import random
from math import inf

import pytest

from localllm.engine.pace import LEAST, PATIENCE, Pace

LAYERS = 16


def run(pace: Pace, fixed: float, each: float, passes: int, noise: float = 0.0) -> list[tuple[int, float]]:
    """(tokens, seconds of a layer) of each pass of a machine on which one takes fixed + each * tokens."""
    rng, seen = random.Random(1), []
    for _ in range(passes):
        tokens = pace.tokens(512)
        seconds = (fixed + each * tokens) * rng.uniform(1, 1 + noise)
        pace.learn(tokens, seconds)
        seen.append((tokens, seconds / LAYERS))
    return seen


@pytest.mark.parametrize("each", [0.0002, 0.001, 0.003, 0.01])
@pytest.mark.parametrize("fixed", [0.0, 0.005, 0.05])
def test_a_pass_takes_a_few_targets_and_a_layer_a_part_of_one(each: float, fixed: float) -> None:
    seen = run(Pace(0.1), fixed, each, 20)
    assert all(layer < 0.05 for _, layer in seen), "not even before it has learnt"
    tokens, layer = seen[-1]
    assert tokens == 512 or 0.9 * PATIENCE * 0.1 < layer * LAYERS < 1.1 * PATIENCE * 0.1


def test_noise_moves_it_little() -> None:
    assert all(layer < 0.1 for _, layer in run(Pace(0.1), 0.02, 0.002, 300, noise=1.0))


def test_a_machine_that_becomes_slow() -> None:
    pace = Pace(0.1)
    run(pace, 0.01, 0.0005, 30)
    assert [layer < 0.05 for _, layer in run(pace, 0.01, 0.005, 10)] == [False] + 9 * [True]


@pytest.mark.parametrize("small", [1, 4, 16])
def test_small_passes_do_not_make_it_small(small: int) -> None:
    """Half of all passes are the few tokens that a prefix cache leaves, which take as long as fifty more."""
    pace = Pace(0.1)
    run(pace, 0.05, 0.001, 10)
    for _ in range(20):
        tokens = pace.tokens(512)
        pace.learn(small, 0.05 + 0.001 * small)
        assert pace.tokens(512) == tokens > 300
        run(pace, 0.05, 0.001, 1)


def test_a_first_pass_that_takes_for_ever_is_forgotten() -> None:
    pace = Pace(0.1)
    assert pace.tokens(512) == LEAST
    pace.learn(LEAST, 20.0)
    assert pace.tokens(512) == LEAST
    assert run(pace, 0.01, 0.001, 20)[-1][0] > 300


def test_prompts_get_on_however_slow_the_machine_is() -> None:
    assert run(Pace(0.1), 1.0, 1.0, 30)[-1][0] == LEAST


def test_nobody_waits_while_no_answer_is_written() -> None:
    assert Pace(0.1).seconds(answering=0, joining=3) == PATIENCE * 0.1


def test_who_waits_to_be_answered_leaves_its_place_to_prompts() -> None:
    pace = Pace(0.1)
    assert pace.seconds(answering=4, joining=12) == 0.1, "nothing is known yet"
    run(pace, 0.0, 0.002, 10)
    assert pace.seconds(answering=4, joining=0) == 0.1
    assert pace.seconds(answering=4, joining=12) == pytest.approx(0.1 + 12 * 0.002)


def test_without_a_target_every_pass_is_as_large_as_it_can_be() -> None:
    pace = Pace(inf)
    run(pace, 1.0, 1.0, 5)
    assert pace.tokens(512) == 512
    assert pace.seconds(answering=1, joining=0) == inf
