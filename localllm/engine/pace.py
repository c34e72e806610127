"""How many tokens a step may have, so that nobody whose answer is being written waits long for the next word.

What a step takes beyond a step without prompts is a line over the tokens that it has more: a fixed part, as weights
are read again, and so much for each. Both are learnt from the steps that were run. Where many answers are written
while more are waiting there are hardly any steps without prompts, so one is made now and then, whose time tells what
the prompts of the others add. While answers are written, prompts may add `target` seconds to a step of all answers that
there will be: one that is still waiting leaves its place to another token of prompts, which takes no longer, so a crowd
gets in sooner. Without an answer being written nobody waits for its next word: they may take PATIENCE times as much.

Some devices multiply tokens of prompts in groups, and one token takes as long as a group: there a step has whole ones.
"""

from math import inf

PATIENCE = 4
LEAST = 8  # tokens: even if a step takes far too long, prompts get on
LEAST_GROUPS = 3  # likewise: weights are unpacked before the first one, which takes as long as three
FIRST = 32  # tokens of prompts in a step, while nothing is known
SELDOM = 8  # steps between two that are made without prompts to learn what these take
_LEARN = 0.3  # how much a new measurement counts


class Pace:
    """target: seconds, or infinity to let every step be as large as it can. group: tokens of prompts that take as long
    as one of them."""

    def __init__(self, target: float = inf, group: int = 1) -> None:
        self.target = target
        self.group = group
        self.plain: float | None = None  # seconds of a step without prompts
        self.plain_tokens = 0.0  # how many tokens such a step had
        self.more: _Line | None = None  # what prompts add to a step
        self.since = SELDOM  # steps since one without prompts

    def budget(self, most: int, decoding: int, joining: int = 0) -> int:
        """Tokens of the next step, at most `most`, of which `decoding` are the next tokens of answers; so many others
        will be `joining`."""
        if self.target == inf:
            return most
        patience = 1 if decoding else PATIENCE
        room = patience * FIRST if self.more is None else self.more.tokens_in(patience * self.target)
        room += joining
        groups = int(room) if self.group == 1 else max(LEAST_GROUPS, round(room / self.group))
        return min(most, decoding + max(LEAST, groups * self.group))

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
            added = max(seconds - (self.plain or 0.0), 0.1 * seconds)
        elif self.more is None:
            more, added = tokens, seconds
        else:
            return
        if self.more is None:
            self.more = _Line(more, added)
        self.more.learn(more, added)

    def _knows(self, decoding: int) -> bool:
        """Whether a step of about so many answers was seen without prompts."""
        return self.plain is not None and 4 * abs(decoding - self.plain_tokens) <= decoding


class _Line:
    """Seconds over tokens, fitted to the last steps: means, variance and covariance, in which old steps fade."""

    def __init__(self, tokens: float, seconds: float) -> None:
        self.tokens, self.seconds = tokens, seconds
        self.variance = self.covariance = 0.0

    def learn(self, tokens: float, seconds: float) -> None:
        more, longer = tokens - self.tokens, seconds - self.seconds
        self.tokens += _LEARN * more
        self.seconds += _LEARN * longer
        self.variance = (1 - _LEARN) * (self.variance + _LEARN * more * more)
        self.covariance = (1 - _LEARN) * (self.covariance + _LEARN * more * longer)

    def tokens_in(self, seconds: float) -> float:
        """As many as take so long. A slope that the steps hardly show, or that noise made, is not trusted."""
        mean = slope = self.seconds / self.tokens
        if self.variance > (self.tokens / 10) ** 2:
            slope = min(mean, max(mean / 2, self.covariance / self.variance))
        return self.tokens + (seconds - self.seconds) / slope


def _mix(old: float | None, new: float) -> float:
    return new if old is None else old + _LEARN * (new - old)
