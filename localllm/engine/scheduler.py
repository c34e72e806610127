"""Decides what the next forward passes compute.

A sequence has some tokens and has computed some of them. One that runs and is a single token behind gets it in the next
step: that is decoding. Those further behind share a budget of tokens, first come first served, in a pass of their own:
that is chunked prefill. Such a pass may take as long as several steps. Until it is committed its sequences are in
flight: they keep their blocks whatever happens, even when they are ended. Prefix-cache hits and preemption only move
`computed`.

All sequences stand in one order, by rank: class first (0 high, 1 normal, 2 low), then turn, then arrival. Turns make
clients equal: each of a client's requests takes a later turn than its last, and a new client's first the turn that is
being served, so who asks once does not wait for who asked a hundred times (start-time fair queueing, Goyal et al.
1996, at equal costs). Who needs room may take it from those that rank below, lowest first, and nobody is admitted past
one that waits for room: so the very first of the order gets on in every step, or when the pass is over. Lest a lower
class wait for ever, one of its sequences, the first by rank, goes before all others when nobody of the class has
advanced for `patience` steps, and the next not before that one is finished.

The pool must hold any one sequence at its full length.
"""

import sys
from bisect import bisect, bisect_left, insort
from collections import Counter
from itertools import count as counter
from operator import attrgetter

from localllm.engine.block_manager import BlockManager
from localllm.engine.sequence import FinishReason, Row, Sequence, State

MOST_CLIENTS = 1000  # remembered while they ask for nothing
_rank = attrgetter("rank")


class Scheduler:
    def __init__(self, blocks: BlockManager, max_rows: int, patience: int = 1000) -> None:
        self.blocks = blocks
        self.max_rows = max_rows
        self.patience = patience
        self.running: list[Sequence] = []  # by rank, as is `waiting`
        self.waiting: list[Sequence] = []
        self.unfinished: dict[int, Sequence] = {}  # both of them by arrival, eldest first
        self.in_flight: set[Sequence] = set()  # of prefill()'s rows that are not committed
        self.arrivals = counter()
        self.clock: Counter[int] = Counter()  # by class: the latest turn that was admitted
        self.turns: dict[tuple[int, str], int] = {}  # by class and client: the turn of its next request
        self.advanced: dict[int, int] = {}  # by class: the step in which one of it advanced, or its first came
        self.promoted: Sequence | None = None  # who came from a lower class before all others
        self.steps = self.preemptions = self.recomputed_blocks = self.cached_tokens = 0

    def add(self, seq: Sequence) -> None:
        seq.rank = (seq.params.priority, self._turn(seq.params.priority, seq.client), next(self.arrivals))
        if all(other.rank[0] != seq.rank[0] for other in self.unfinished.values()):
            self.advanced[seq.rank[0]] = self.steps
        self.unfinished[seq.rank[-1]] = seq
        insort(self.waiting, seq, key=_rank)

    def decode(self) -> list[Row]:
        """The rows of the next step: at most `max_rows`, of one token each."""
        self.steps += 1
        self._promote()
        rows: list[Row] = []
        for seq in self.running[:]:
            if seq.state is State.RUNNING and self._decodes(seq) and self._grow(seq, 1):
                rows.append(Row(seq, seq.computed, 1, True))
        return rows

    def prefill(self, budget: int) -> list[Row]:
        """The rows of a pass with at most `budget` tokens, in flight until commit() or abandon(); nothing may be so
        when it is called."""
        rows: list[Row] = []
        filling: set[bytes | None] = set()  # keys of the blocks that these rows fill
        size, spare, admitting = self.blocks.block_size, budget, True

        order = sorted(self.running + self.waiting[: self.max_rows], key=_rank)
        for seq, least_behind in zip(order, _least_behind(order), strict=True):
            if seq.state is State.WAITING:  # possibly preempted a moment ago
                admitting = admitting and spare > 0 and self._admit(seq)
                if not admitting:
                    continue
            elif self._decodes(seq):
                admitting = admitting and self.blocks.lacking(seq, len(seq.tokens)) <= len(self.blocks.free)
                continue
            if self.blocks.share(seq) in filling:
                continue  # a row above computes its next block, which it will share in the next pass
            behind = seq.pending
            count = min(behind, spare)
            if least_behind < behind > spare:
                count = (count + 1) // 2
            if seq.computed < seq.prompt_length:
                count = min(count, seq.prompt_length - seq.computed)  # a row is of the prompt or of the answer
            if count == 0:
                continue
            if not self._grow(seq, count, spare=self._above(seq)):
                admitting = False  # it keeps what it has until there is room, and nobody overtakes it
                continue
            rows.append(Row(seq, seq.computed, count, count == behind))
            spare -= count
            filling.update(seq.keys[seq.computed // size : (seq.computed + count) // size])
        self.in_flight = {row.seq for row in rows}
        return rows

    def commit(self, rows: list[Row], sampled: list[int]) -> None:
        """Record that `rows` were computed. `sampled` has one token for each row that samples, -1 where that failed."""
        size = self.blocks.block_size
        tokens = iter(sampled)
        self.abandon(rows)
        for row in rows:
            seq, token = row.seq, next(tokens) if row.samples else None
            if seq.state is State.FINISHED:  # in flight
                continue
            seq.computed = row.start + row.count
            if row.start < seq.reached:
                self.recomputed_blocks += min(seq.reached, seq.computed) // size - row.start // size
            elif row.start > seq.reached:
                seq.cached += row.start - seq.reached
                self.cached_tokens += row.start - seq.reached
            if seq.computed > seq.reached:
                seq.reached = seq.computed
                self.advanced[seq.rank[0]] = self.steps
            if token == -1:
                self.finish(seq, "error")  # without publishing what led to it
                continue
            if seq.computed // size > row.start // size:
                self.blocks.publish(seq, row.start)
            if token is not None:
                seq.tokens.append(token)
                if token in seq.stop_tokens:
                    self.finish(seq, "stop")
                elif len(seq.tokens) >= seq.max_length:
                    self.finish(seq, "length")

    def abandon(self, rows: list[Row]) -> None:
        """Nothing of `rows` is computed any more. Of those that were ended in flight the blocks are free now."""
        for row in rows:
            self.in_flight.discard(row.seq)
            if row.seq.state is State.FINISHED:
                self.blocks.drop(row.seq)

    def finish(self, seq: Sequence, reason: FinishReason) -> None:
        """End a sequence in whatever state it is."""
        if seq.state is not State.FINISHED:
            self._queue(seq).remove(seq)
            if seq not in self.in_flight:
                self.blocks.drop(seq)
            del self.unfinished[seq.rank[-1]]
            seq.state, seq.finish_reason = State.FINISHED, reason

    def borrow(self, count: int) -> list[int]:
        """`count` blocks for work outside the order, while nothing is in flight; they go back by blocks.release()."""
        while len(self.blocks.free) < count:
            self._preempt(self.running[-1])
        return self.blocks.allocate(count)

    def _decodes(self, seq: Sequence) -> bool:
        return seq.pending == 1 and seq not in self.in_flight

    def _grow(self, seq: Sequence, count: int, spare: int = 0) -> bool:
        """Have blocks for so many more tokens of it, and so many to spare."""
        lacking = self.blocks.lacking(seq, seq.computed + count)
        if lacking and not self._make_room(seq, lacking + spare):
            return False
        seq.blocks.extend(self.blocks.allocate(lacking))
        return True

    def _above(self, seq: Sequence) -> int:
        """How many rank above it: a block for each is left free, as they grow while it is in flight."""
        return bisect_left(self.running, seq.rank, key=_rank)

    def _turn(self, priority: int, client: str) -> int:
        if not self.unfinished:
            self.turns.clear()
            self.clock.clear()
        elif len(self.turns) > MOST_CLIENTS:
            waiting = {(seq.params.priority, seq.client) for seq in self.unfinished.values()}
            self.turns = {key: turn for key, turn in self.turns.items() if key in waiting}
        turn = max(self.clock[priority], self.turns.get((priority, client), 0))
        self.turns[priority, client] = turn + 1
        return turn

    def _admit(self, seq: Sequence) -> bool:
        """Let a waiting sequence run if there is room for all of its tokens, besides a block for each sequence above,
        lest it be preempted as soon as they grow."""
        self.blocks.share(seq)  # first, lest making room evict those
        if not self._make_room(seq, self.blocks.lacking(seq, len(seq.tokens)) + self._above(seq), rows=1):
            self.blocks.drop(seq)
            return False
        self._move(seq, State.RUNNING, seq.rank)
        self.clock[seq.rank[0]] = max(self.clock[seq.rank[0]], seq.rank[1])
        return True

    def _make_room(self, seq: Sequence, blocks: int, rows: int = 0) -> bool:
        """Have so many blocks and rows free, if need be at the cost of those that rank below."""
        free = self.blocks.free
        while blocks > len(free) or len(self.running) + rows > self.max_rows:
            below = self.running[bisect(self.running, seq.rank, key=_rank) :]
            if not below or blocks > len(free) + sum(len(other.blocks) for other in below):
                return False
            if below[-1] in self.in_flight:
                return False  # a pass is over soon, and who ranks above it should not go instead
            self._preempt(below[-1])
        return True

    def _preempt(self, seq: Sequence) -> None:
        """Back to waiting. What it computed stays findable until the space is used, so coming back is often cheap."""
        self.blocks.drop(seq)
        self._move(seq, State.WAITING, seq.rank)
        self.preemptions += 1

    def _promote(self) -> None:
        """Whose class has not got on for long gets on, one at a time. Within a class turns see to that."""
        if self.promoted and self.promoted.state is not State.FINISHED:
            return
        starving = {c for c, step in self.advanced.items() if c > 0 and self.steps - step > self.patience}
        order = sorted(self.running + self.waiting, key=_rank) if starving else []
        self.promoted = next((seq for seq in order if seq.rank[0] in starving), None)
        if self.promoted:
            self.advanced[self.promoted.rank[0]] = self.steps
            self._move(self.promoted, self.promoted.state, (0, -1, self.promoted.rank[-1]))
        for idle in starving if self.promoted is None else ():
            del self.advanced[idle]

    def _move(self, seq: Sequence, state: State, rank: tuple[int, int, int]) -> None:
        self._queue(seq).remove(seq)
        seq.state, seq.rank = state, rank
        insort(self._queue(seq), seq, key=_rank)

    def _queue(self, seq: Sequence) -> list[Sequence]:
        return self.running if seq.state is State.RUNNING else self.waiting


def _least_behind(order: list[Sequence]) -> list[int]:
    """For each, how few tokens one behind it is short of, of those that are short of several."""
    least, found = sys.maxsize, []
    for seq in reversed(order):
        found.append(least)
        if 1 < (pending := seq.pending) < least:
            least = pending
    return found[::-1]
