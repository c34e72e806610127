"""Ten thousand random workloads against a simulated KV memory: right answers, right books, nobody starved."""

from __future__ import annotations

import os
import random
from array import array

import pytest

from localllm.engine.block_manager import BlockManager
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import FinishReason, Row, Sequence, State
from localllm.params import SamplingParams
from tests.engine.simulation import VOCABULARY, Memory, check_admission, check_books, check_decoding, check_rows, oracle

WORKLOADS = int(os.environ.get("LOCALLLM_FUZZ_WORKLOADS", "10000"))
BATCHES = 20
PARAMS = [SamplingParams(priority=priority) for priority in range(3)]


def random_sequences(rng: random.Random, count: int, context: int) -> list[Sequence]:
    """Prompts that share prefixes of a few stems; several choices of one prompt; few stop tokens; salts."""
    stems = [[rng.randrange(VOCABULARY) for _ in range(context)] for _ in range(rng.choice((1, 1, 3)))]
    salts = rng.choice(((b"",), (b"",), (b"", b"a", b"b")))
    classes = rng.choice((PARAMS[1:2], PARAMS))
    sequences: list[Sequence] = []
    for _ in range(count):
        if sequences and rng.random() < 0.2:
            twin = rng.choice(sequences)
            prompt, salt, choice = twin.tokens[:], twin.salt, twin.choice + rng.randrange(2)
        else:
            stem = rng.choice(stems)[: rng.randrange(rng.choice((context, 5)))]
            prompt = array("i", stem + [rng.randrange(VOCABULARY) for _ in range(rng.randrange(4))])[: context - 1]
            salt, choice = rng.choice(salts), 0
        prompt = prompt or array("i", [7])
        sequences.append(
            Sequence(
                prompt,
                rng.choice(classes),
                max_length=min(context, len(prompt) + rng.randrange(1, 50)),
                seed=rng.randrange(3),
                choice=choice,
                stop_tokens=frozenset(rng.sample(range(VOCABULARY), rng.choice((0, 0, 1)))),
                salt=salt,
                client=rng.choice(("", "", "a", "b")),
            )
        )
    return sequences


class Workload:
    """One random configuration and what comes upon it, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        size = rng.choice((1, 2, 3, 4, 8))
        context = rng.choice((6, 20, 50))
        self.n_blocks = -(-context // size) + rng.choice((0, 1, 2, 5, 20))
        blocks = BlockManager(self.n_blocks, size, prefix_cache=rng.random() < 0.75)
        self.scheduler = Scheduler(blocks, rng.choice((1, 2, 4, 8)), patience=rng.choice((3, 20, 1000)))
        self.step_tokens = rng.choice((1, 2, 7, 12, 40))
        self.memory = Memory(blocks)
        self.sequences = random_sequences(rng, rng.choice((1, 4, 8, 16)), context)
        self.expected = {seq: oracle(seq) for seq in self.sequences}
        self.fates: dict[Sequence, str] = {}  # of those that did not end by themselves
        self.prompts: list[Row] = []  # of a pass that is under way
        self.steps_to_go = 0  # until it is done

    def run(self) -> Scheduler:
        rng, scheduler = self.rng, self.scheduler
        arrivals = [(rng.choice((0, 0, rng.randrange(40))), i) for i in range(len(self.sequences))]
        arrivals.sort(reverse=True)
        steps_left = 50 + sum(seq.max_length for seq in self.sequences) * 12
        while arrivals or scheduler.unfinished:
            while arrivals and arrivals[-1][0] <= scheduler.steps:
                scheduler.add(self.sequences[arrivals.pop()[1]])
            if scheduler.unfinished and rng.random() < 0.01:
                self.end(rng.choice(list(scheduler.unfinished.values())), "abort")
            self.step()
            check_books(scheduler, self.prompts)
            if not self.prompts and rng.random() < 0.01:  # someone uses a few blocks for another purpose
                borrowed = scheduler.borrow(rng.randint(1, self.n_blocks))
                self.memory.scribble(borrowed)
                scheduler.blocks.release(borrowed)
                check_books(scheduler)
            steps_left -= 1
            assert steps_left > 0, "somebody starves"
        scheduler.abandon(self.prompts)  # of which nobody is left
        self.check_answers()
        return scheduler

    def step(self) -> None:
        """A token for every answer, and some of a pass over prompts, as Engine._step() does."""
        scheduler, rng = self.scheduler, self.rng
        before = {seq: seq.pending for seq in scheduler.running}
        rows = scheduler.decode()
        first = None if self.prompts else min(scheduler.unfinished.values(), key=lambda seq: seq.rank, default=None)
        check_rows(scheduler, before, rows, scheduler.max_rows)
        check_decoding(scheduler, before, rows)
        self.compute(rows)
        if not self.prompts:
            self.begin_prompts()
        served = {row.seq for row in rows + self.prompts}
        assert first is None or first in served, "the first of the order does not get on"
        self.steps_to_go -= 1
        if self.prompts and self.steps_to_go <= 0:
            rows, self.prompts = self.prompts, []
            if rng.random() < 0.02:  # nobody wants it any more
                for row in rows:
                    self.end(row.seq, "abort")
                scheduler.abandon(rows)
            else:
                self.compute(rows)

    def begin_prompts(self) -> None:
        scheduler, budget = self.scheduler, self.rng.randint(1, self.step_tokens)
        before = {seq: seq.pending for seq in scheduler.running}
        self.prompts = scheduler.prefill(budget)
        check_rows(scheduler, before, self.prompts, budget)
        check_admission(scheduler)
        self.memory.begin(self.prompts)
        self.steps_to_go = self.rng.choice((1, 1, 2, 5))

    def compute(self, rows: list[Row]) -> None:
        drawn = self.memory.run(rows)
        fate = self.rng.random()
        if rows and fate < 0.005:  # the step failed half way: whatever its rows wrote is worth nothing
            for row in rows:
                self.memory.spoil(row)
                self.end(row.seq, "error")
            self.scheduler.abandon(rows)
        elif drawn and fate < 0.01:  # one row's logits were not finite
            row = next(row for row in rows if row.samples)
            self.memory.spoil(row)
            self.fates.setdefault(row.seq, "error")
            self.scheduler.commit(rows, [-1, *drawn[1:]])
        else:
            self.scheduler.commit(rows, drawn)

    def end(self, seq: Sequence, reason: FinishReason) -> None:
        self.fates.setdefault(seq, reason)  # in flight it may have ended before
        self.scheduler.finish(seq, reason)

    def check_answers(self) -> None:
        for seq in self.sequences:
            answer = seq.tokens[seq.prompt_length :].tolist()
            assert seq.state is State.FINISHED
            if seq in self.fates:
                assert answer == self.expected[seq][: len(answer)]
                assert seq.finish_reason == self.fates[seq]
            else:
                assert answer == self.expected[seq]
                assert seq.finish_reason == ("stop" if answer[-1] in seq.stop_tokens else "length")
        assert len(self.scheduler.blocks.free) == self.n_blocks


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_workloads(batch: int) -> None:
    preemptions = recomputed = 0
    for seed in range(batch, WORKLOADS, BATCHES):
        try:
            scheduler = Workload(seed).run()
        except BaseException as error:
            error.add_note(f"Workload({seed}).run() repeats it")
            raise
        preemptions += scheduler.preemptions
        recomputed += scheduler.recomputed_blocks
    assert preemptions > WORKLOADS / BATCHES / 2, "these workloads preempt too little to prove anything"
    assert recomputed > 0
