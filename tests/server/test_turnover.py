"""What Retry-After says, by a clock that is set."""

from __future__ import annotations

import pytest

from localllm.server.turnover import LONGEST, REMEMBERED, Turnover


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turnover(clock: Clock) -> Turnover:
    """With a request at work."""
    begun = Turnover(clock)
    begun.begin()
    return begun


def test_the_pace_is_that_of_the_latest_ends(clock: Clock, turnover: Turnover) -> None:
    for _ in range(10):  # two places every five seconds
        clock.now += 5
        turnover.ended(2)
    assert turnover.seconds(1) == 3 and turnover.seconds(4) == 10
    for _ in range(2 * REMEMBERED):  # from now on a place every half second
        clock.now += 0.5
        turnover.ended(1)
    assert turnover.seconds(1) == 1 and turnover.seconds(20) == 10


def test_a_standstill_shows(clock: Clock, turnover: Turnover) -> None:
    clock.now += 1
    turnover.ended(1)
    clock.now += 59
    assert turnover.seconds(1) == 60 and turnover.seconds(1000) == LONGEST


def test_before_the_first_end_it_is_what_has_passed(clock: Clock, turnover: Turnover) -> None:
    assert turnover.seconds(5) == 1
    clock.now += 20
    assert turnover.seconds(5) == 20


def test_an_idle_hour_does_not_count(clock: Clock, turnover: Turnover) -> None:
    clock.now += 1
    turnover.ended(1)
    clock.now += 3600
    turnover.begin()
    clock.now += 2
    turnover.ended(4)
    assert turnover.seconds(8) == 4
