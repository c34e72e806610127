"""A KV memory in which every cell holds a digest of all tokens up to it, and a model that reads all of it.

The model checks each cell that attention would read, so a block that is stale, foreign or not computed yet is found
at once. Its next token depends on the whole history: the answer of a sequence is a function of its prompt alone,
and `oracle` computes it without scheduler, memory or neighbours.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from localllm.engine.block_manager import BlockManager
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import Row, Sequence, State

VOCABULARY = 50
NOTHING = -1


def extend(chain: list[int], tokens: array[int] | list[int], salt: bytes) -> None:
    """Digests of tokens[: i + 1], for each i that `chain` lacks."""
    for i in range(len(chain), len(tokens)):
        chain.append(hash((chain[-1] if chain else hash(salt), tokens[i])))


def draw(digest: int, seed: int, choice: int, position: int) -> int:
    return hash((digest, seed, choice, position)) % VOCABULARY


def oracle(seq: Sequence) -> list[int]:
    """What a sequence that has not run yet is going to answer."""
    tokens = list(seq.tokens)
    chain: list[int] = []
    answer: list[int] = []
    while not answer or (answer[-1] not in seq.stop_tokens and len(tokens) < seq.max_length):
        extend(chain, tokens, seq.salt)
        answer.append(draw(chain[-1], seq.seed, seq.choice, len(tokens)))
        tokens.append(answer[-1])
    return answer


@dataclass
class Memory:
    blocks: BlockManager
    cells: list[list[int]] = field(init=False)
    chains: dict[Sequence, list[int]] = field(init=False, default_factory=dict)
    computed: int = field(init=False, default=0)  # tokens

    def __post_init__(self) -> None:
        self.cells = [[NOTHING] * self.blocks.block_size for _ in range(self.blocks.n_blocks)]

    def begin(self, rows: list[Row]) -> None:
        """A pass over `rows` that run() ends: until then it may have written anything where it writes."""
        for row in rows:
            self._check_owned(row)
            self.spoil(row)

    def run(self, rows: list[Row]) -> list[int]:
        """One step of the model: all rows read before any of them writes."""
        for row in rows:
            extend(self.chains.setdefault(row.seq, []), row.seq.tokens, row.seq.salt)
            self._read(row)
        for row in rows:
            self._write(row)
            self.computed += row.count
        return [
            draw(self.chains[row.seq][-1], row.seq.seed, row.seq.choice, len(row.seq.tokens))
            for row in rows
            if row.samples
        ]

    def spoil(self, row: Row) -> None:
        """Undo what a row wrote, as a step that fails half way might."""
        for position in range(row.start, row.start + row.count):
            self.cells[row.seq.blocks[position // self.blocks.block_size]][position % self.blocks.block_size] = NOTHING

    def scribble(self, blocks: list[int]) -> None:
        for block in blocks:
            self.cells[block] = [NOTHING] * self.blocks.block_size

    def _read(self, row: Row) -> None:
        size, chain = self.blocks.block_size, self.chains[row.seq]
        for i in range(0, row.start, size):
            stop = min(row.start, i + size)
            found = self.cells[row.seq.blocks[i // size]][: stop - i]
            assert found == chain[i:stop], f"positions {i}:{stop} of a sequence are not its own"

    def _write(self, row: Row) -> None:
        size, chain = self.blocks.block_size, self.chains[row.seq]
        self._check_owned(row)
        for position in range(row.start, row.start + row.count):
            self.cells[row.seq.blocks[position // size]][position % size] = chain[position]

    def _check_owned(self, row: Row) -> None:
        size = self.blocks.block_size
        for block in row.seq.blocks[row.start // size : -(-(row.start + row.count) // size)]:
            assert self.blocks.refs[block] == 1, f"block {block} is written, but has {self.blocks.refs[block]} owners"
            assert self.blocks.key_of[block] is None, f"block {block} is written, but others may find it"


def check_books(scheduler: Scheduler, flying: Iterable[Row] = ()) -> None:
    """Between two steps: every block is free or owned, counted right, and findable only under its own name. `flying`:
    the rows of a pass that is not committed."""
    blocks, size = scheduler.blocks, scheduler.blocks.block_size
    ends = {row.seq: row.start + row.count for row in flying}
    assert scheduler.in_flight == set(ends)
    refs = [0] * blocks.n_blocks
    for seq in {*scheduler.running, *ends}:
        assert seq.state is State.RUNNING or seq in ends
        assert len(seq.blocks) == -(-ends.get(seq, seq.computed) // size), "a sequence owns what its tokens need"
        assert seq.pending > 0
        for block in seq.blocks:
            refs[block] += 1
    assert refs == blocks.refs
    assert list(blocks.free) == [b for b in blocks.free if not refs[b]], "an owned block is on the free list"
    assert len(blocks.free) + sum(count > 0 for count in refs) == blocks.n_blocks
    assert {b: k for b, k in enumerate(blocks.key_of) if k} == {b: k for k, b in blocks.block_of.items()}
    assert blocks.prefix_cache or not blocks.block_of
    for seq in scheduler.waiting:
        assert seq.state is State.WAITING and not seq.blocks and seq.computed == 0
    ranks = [seq.rank for seq in scheduler.running], [seq.rank for seq in scheduler.waiting]
    assert ranks == (sorted(ranks[0]), sorted(ranks[1]))
    assert sorted(s.rank for s in scheduler.unfinished.values()) == sorted(ranks[0] + ranks[1])
    assert list(scheduler.unfinished) == sorted(scheduler.unfinished)
    assert len(scheduler.running) <= scheduler.max_rows


def check_rows(scheduler: Scheduler, before: dict[Sequence, int], rows: list[Row], budget: int) -> None:
    """After decode() or prefill(): `before` were running when it was called, each with so many pending tokens."""
    served = {row.seq for row in rows}
    assert len(served) == len(rows), "a sequence has two rows"
    assert sum(row.count for row in rows) <= budget
    assert len(rows) <= scheduler.max_rows
    assert all(row.count > 0 and row.start == row.seq.computed and row.seq.state is State.RUNNING for row in rows)
    assert all(row.samples == (row.start + row.count == len(row.seq.tokens)) for row in rows)
    size = scheduler.blocks.block_size
    assert all(row.start + row.count <= len(row.seq.blocks) * size for row in rows), "a row has no memory"
    for seq in before:
        if seq.state is State.WAITING:  # it was preempted
            assert all(other.rank < seq.rank for other in scheduler.running), "preempted for someone less important"


def check_admission(scheduler: Scheduler) -> None:
    """After prefill()."""
    for seq in scheduler.running:
        overtaken = [w for w in scheduler.waiting[:1] if w.rank[0] == seq.rank[0] and w.rank < seq.rank]
        assert not overtaken, "admitted past an older one of its class"


def check_decoding(scheduler: Scheduler, before: dict[Sequence, int], rows: list[Row]) -> None:
    """After decode(), likewise: all get on that are a single token behind and have room."""
    size, served = scheduler.blocks.block_size, {row.seq for row in rows}
    for seq, pending in before.items():
        if seq.state is State.RUNNING and pending == 1 and seq not in served | scheduler.in_flight:
            assert len(seq.blocks) * size == seq.computed and not scheduler.blocks.free, "a decoding one was left out"
