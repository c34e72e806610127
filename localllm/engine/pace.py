"""How many tokens a step may have, so that nobody whose answer is being written waits long for the next word.

What a step takes beyond a step without prompts is about proportional to the tokens that it has more; both are learnt
from the steps that were run. Where many answers are written while more are waiting there are hardly any steps without
prompts, so one is made now and then, whose time tells what the prompts of the others add. While answers are written,
prompts may add `target` seconds to a step. Without an answer being written nobody waits for its next word, so they may
take PATIENCE times as much.
"""

from math import inf

PATIENCE = 4
LEAST = 8  # tokens: even if a step takes far too long, prompts get on
FIRST = 32  # tokens of prompts in a step, while nothing is known
SELDOM = 8  # steps between two that are made without prompts to learn what these take
_LEARN = 0.3  # how much a new measurement counts


class Pace:
    """target: seconds, or infinity to let every step be as large as it can."""

    def __init__(self, target: float = inf) -> None:
        self.target = target
        self.plain: float | None = None  # seconds of a step without prompts
        self.plain_tokens = 0.0  # how many tokens such a step had
        self.each: float | None = None  # more seconds for a token more
        self.since = SELDOM  # steps since one without prompts

    def budget(self, most: int, decoding: int) -> int:
        """Tokens of the next step, at most `most`, of which `decoding` are the next tokens of answers."""
        if self.target == inf:
            return most
        patience = 1 if decoding else PATIENCE
        room = patience * FIRST if self.each is None else max(LEAST, int(patience * self.target / self.each))
        return min(most, decoding + room)

    def wants_plain(self, decoding: int) -> bool:
        """Whether the next step should be without prompts, to learn what one takes."""
        known = self.target == inf or decoding < LEAST or self._knows(decoding)
        return not known and self.since >= SELDOM

    def learn(self, tokens: int, decoding: int, seconds: float) -> None:
        """A step with so many tokens took so long."""
        self.since += 1
        if tokens == decoding:
            known = self._knows(decoding)
            self.plain_tokens = _mix(self.plain_tokens if known else None, tokens)
            self.plain = _mix(self.plain if known else None, seconds)
            self.since = 0
            return
        more = tokens - (decoding if self._knows(decoding) else self.plain_tokens)
        if more >= LEAST:
            self.each = _mix(self.each, max(seconds - (self.plain or 0.0), 0.1 * seconds) / more)
        elif self.each is None:
            self.each = seconds / tokens

    def _knows(self, decoding: int) -> bool:
        """Whether a step of about so many answers was seen without prompts."""
        return self.plain is not None and 4 * abs(decoding - self.plain_tokens) <= decoding


def _mix(old: float | None, new: float) -> float:
    return new if old is None else old + _LEARN * (new - old)
