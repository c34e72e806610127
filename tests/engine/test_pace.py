"""The pace of steps on simulated machines: answers never wait much longer than the target, and prompts get on."""

from __future__ import annotations

import random
from math import inf

import pytest

from localllm.engine.pace import LEAST, PATIENCE, Pace


def run(
    pace: Pace, decoding: int, fixed: float, each: float, steps: int, noise: float = 0.0, group: int = 1
) -> list[tuple[int, float]]:
    """(tokens of prompts, seconds that they added) of each step of a machine."""
    rng, seen = random.Random(1), []
    for _ in range(steps):
        tokens = decoding if decoding and pace.wants_plain(decoding) else pace.budget(512, decoding)
        computed = decoding + -(-(tokens - decoding) // group) * group
        seconds = (fixed + each * computed) * rng.uniform(1, 1 + noise)
        pace.learn(tokens, decoding, seconds)
        seen.append((tokens - decoding, seconds - fixed - each * decoding))
    return seen


@pytest.mark.parametrize("each", [0.0002, 0.001, 0.003, 0.006])
@pytest.mark.parametrize("fixed", [0.0, 0.005, 0.04])
@pytest.mark.parametrize("decoding", [1, 4, 32])
def test_prompts_add_the_target_and_no_more(each: float, fixed: float, decoding: int) -> None:
    pace = Pace(0.1)
    for _ in range(10):
        pace.learn(decoding, decoding, fixed + each * decoding)
    seen = run(pace, decoding, fixed, each, 40)
    assert all(added <= 0.25 for _, added in seen), "not even before it has learnt"
    tokens, added = seen[-1]
    assert added <= 0.11 and (added >= 0.06 or tokens + decoding == 512)


def test_a_crowd_that_leaves_no_step_without_prompts() -> None:
    """Of steps without prompts only those of a single answer were seen; then many write and more are waiting."""
    pace = Pace(0.1)
    for _ in range(10):
        pace.learn(1, 1, 0.056)
    seen = []
    for step in range(200):
        decoding = min(30, 1 + step // 4)
        tokens = decoding if pace.wants_plain(decoding) else pace.budget(512, decoding)
        pace.learn(tokens, decoding, 0.05 + 0.006 * decoding + 0.0046 * (tokens - decoding))
        seen.append(0.0046 * (tokens - decoding))
    assert max(seen) <= 0.15 and 0.07 <= seen[-1] <= 0.105


def test_prompts_that_cost_something_before_their_first_token() -> None:
    """Half of a step's time goes into reading weights again; often fewer tokens are waiting than there is room for."""
    pace, rng, seen = Pace(0.1), random.Random(2), []
    pace.learn(16, 16, 0.08)
    for _ in range(120):
        room = pace.budget(512, 16) - 16
        tokens = min(room, rng.choice([20, 45, 512, 512]))
        added = 0.05 + 0.00076 * tokens
        pace.learn(16 + tokens, 16, 0.08 + added)
        seen += [added] if tokens == room else []
    later = seen[10:]
    assert max(seen) < 0.15 and max(later) < 0.115 and sum(later) / len(later) > 0.092


def test_a_crowd_that_has_left() -> None:
    """Steps without prompts were seen with 32 answers only; now there is one, and a prompt."""
    pace = Pace(0.1)
    for _ in range(10):
        pace.learn(32, 32, 0.05 + 0.0046 * 32)
    seen = []
    for _ in range(40):
        tokens = pace.budget(512, 1)
        pace.learn(tokens, 1, 0.05 + 0.0046 * tokens)
        seen.append(0.0046 * (tokens - 1))
    assert max(seen) <= 0.2 and seen[-1] <= 0.15


def test_a_machine_that_becomes_slow() -> None:
    pace = Pace(0.1)
    run(pace, 4, 0.01, 0.0005, 30)
    later = run(pace, 4, 0.01, 0.005, 30)
    assert all(added < 0.15 for _, added in later[15:])


def test_a_first_step_that_takes_for_ever_is_forgotten() -> None:
    pace = Pace(0.1)
    pace.learn(100, 0, 20.0)
    assert pace.budget(512, 1) == 1 + LEAST
    assert run(pace, 1, 0.01, 0.001, 60)[-1][0] > 50


def test_noise_does_not_break_it() -> None:
    added = [added for _, added in run(Pace(0.1), 8, 0.02, 0.001, 300, noise=1.0)[50:]]
    assert sum(added) / len(added) < 0.13 and max(added) < 0.3


@pytest.mark.parametrize("each", [0.0002, 0.001, 0.002])
def test_tokens_in_groups_come_in_whole_ones(each: float) -> None:
    """Half a group more than the target allows is as near as half a group less."""
    pace = Pace(0.1, group=16)
    pace.learn(8, 8, 0.05 + each * 8)
    seen = run(pace, 8, 0.05, each, 60, group=16)
    assert all(tokens % 16 == 0 or tokens == 512 - 8 for tokens, _ in seen)
    tokens, added = seen[-1]
    assert abs(added - 0.1) <= 8.5 * each or tokens + 8 == 512


def test_three_groups_are_the_least() -> None:
    """Where even one takes more than there is, two more cost little beside what comes before the first."""
    pace = Pace(0.1, group=16)
    pace.learn(20, 20, 0.1)
    for _ in range(30):
        tokens = pace.budget(512, 20) - 20
        pace.learn(20 + tokens, 20, 0.1 + 0.11 + 0.001 * tokens)
    assert tokens == 48


@pytest.mark.parametrize("group", [1, 16])
def test_who_waits_leaves_its_place_to_prompts(group: int) -> None:
    """So a step takes no longer than when all of them are answered."""
    pace, decoding, each = Pace(0.1, group), 4, 0.002
    pace.learn(decoding, decoding, 0.05 + each * decoding)
    seen = []
    for _ in range(60):
        tokens = pace.budget(512, decoding, joining=28)
        pace.learn(tokens, decoding, 0.05 + each * tokens)
        seen.append(0.05 + each * tokens)
    full = 0.05 + each * 32
    assert full + 0.08 <= seen[-1] <= full + 0.1 + each * group / 2 + 1e-9


def test_without_answers_prompts_may_take_longer() -> None:
    pace = Pace(0.1)
    run(pace, 0, 0.0, 0.001, 20)
    assert pace.budget(512, 0) == pytest.approx(PATIENCE * 100, abs=2)


def test_without_a_target_steps_are_as_large_as_they_can() -> None:
    pace = Pace(inf)
    pace.learn(512, 3, 9.0)
    assert pace.budget(512, 3) == 512
