"""How fast answers make room for others: what a client that found the queue full is told to wait.

Places that became free, divided by the time that took, both since the server was last idle or over the latest
REMEMBERED ends. Before the first end nothing is known but that answers take longer than what has passed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from time import perf_counter

REMEMBERED = 64
LONGEST = 600  # seconds: nobody plans beyond


class Turnover:
    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._since = clock()  # when what is remembered began
        self._ends: deque[tuple[float, int]] = deque()  # (when, places)

    def begin(self) -> None:
        """The first answer after an idle time: how fast it went before tells nothing."""
        self._since = self._clock()
        self._ends.clear()

    def ended(self, places: int) -> None:
        self._ends.append((self._clock(), places))
        if len(self._ends) > REMEMBERED:
            self._since, _ = self._ends.popleft()

    def seconds(self, places: int) -> int:
        """Until so many places more will be free, if it goes on like this."""
        passed, freed = self._clock() - self._since, sum(count for _, count in self._ends)
        return max(1, min(LONGEST, ceil(passed * places / freed if freed else passed)))
