"""How much of prompts is computed between two steps, so that nobody whose answer is being written waits long.

Prompts are computed in passes that stop after any layer. While answers are written, a pass goes on for `target` seconds
after each step of all answers that there will be: for one that still waits to begin the step has no token yet, and the
pass takes that token's time, so a crowd gets in sooner. Without an answer being written nobody waits for its next word,
and a pass may go on PATIENCE times as long. It has as many tokens as are computed in that time: with more of them
weights are read and unpacked less often, with fewer who comes next waits less for its turn. How long a token takes is
learnt from the passes that were run.
"""

from math import inf

PATIENCE = 4
LEAST = 32  # tokens of a pass, and how many the first one has
_LEARN = 0.5  # how much a new measurement counts


class Pace:
    """target: seconds, or infinity to let every pass be as large as it can and go on to its end."""

    def __init__(self, target: float = inf) -> None:
        self.target = target
        self.each: float | None = None  # seconds for a token
        self.room = 0  # tokens that the last pass might have had

    def tokens(self, most: int) -> int:
        """Of the next pass."""
        if self.target == inf:
            return most
        fit = 0 if self.each is None else int(PATIENCE * self.target / self.each)
        self.room = min(most, max(LEAST, fit))
        return self.room

    def seconds(self, answering: int, joining: int) -> float:
        """How long a pass may go on now, while so many answers are written and so many others wait to be."""
        if answering == 0:
            return PATIENCE * self.target
        return self.target + joining * (self.each or 0.0)

    def learn(self, tokens: int, seconds: float) -> None:
        """A pass with so many tokens took so long. In a small one what comes before the first token weighs too much."""
        each = max(seconds, 1e-9) / tokens
        if self.each is not None and each > self.each and tokens < self.room / 2:
            return
        self.each = each if self.each is None else self.each + _LEARN * (each - self.each)
