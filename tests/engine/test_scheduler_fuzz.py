"""Ten thousand random workloads against a simulated KV memory: right answers, right books, nobody starved."""

from __future__ import annotations

import os
import random
from array import array

import pytest

from localllm.engine.block_manager import BlockManager
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import Sequence, State
from localllm.params import SamplingParams
from tests.engine.simulation import VOCABULARY, Memory, check_books, check_step, oracle

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
            )
        )
    return sequences


def run_workload(seed: int) -> Scheduler:
    rng = random.Random(seed)
    size = rng.choice((1, 2, 3, 4, 8))
    context = rng.choice((6, 20, 50))
    n_blocks = -(-context // size) + rng.choice((0, 1, 2, 5, 20))
    max_rows = rng.choice((1, 2, 4, 8))
    step_tokens = rng.choice((1, 2, 7, 12, 40))
    patience = rng.choice((3, 20, 1000))
    scheduler = Scheduler(BlockManager(n_blocks, size, prefix_cache=rng.random() < 0.75), max_rows, patience)
    memory = Memory(scheduler.blocks)
    sequences = random_sequences(rng, rng.choice((1, 4, 8, 16)), context)
    expected = {seq: oracle(seq) for seq in sequences}
    prompts = {seq: len(seq.tokens) for seq in sequences}
    arrivals = sorted(((rng.choice((0, 0, rng.randrange(40))), i) for i in range(len(sequences))), reverse=True)
    steps_left = 50 + sum(seq.max_length * 3 for seq in sequences) * 2
    cancelled: set[Sequence] = set()
    failed: set[Sequence] = set()

    while arrivals or scheduler.unfinished:
        while arrivals and arrivals[-1][0] <= scheduler.steps:
            scheduler.add(sequences[arrivals.pop()[1]])
        if scheduler.unfinished and rng.random() < 0.01:
            seq = rng.choice(list(scheduler.unfinished.values()))
            cancelled.add(seq)
            scheduler.finish(seq, "abort")
        before = {seq: seq.pending for seq in scheduler.running}
        budget = rng.randint(1, step_tokens)
        rows = scheduler.schedule(budget)
        check_step(scheduler, before, rows, budget)
        drawn = memory.run(rows)
        fate = rng.random()
        if rows and fate < 0.005:  # the step failed half way: whatever its rows wrote is worth nothing
            for row in rows:
                memory.spoil(row)
                failed.add(row.seq)
                scheduler.finish(row.seq, "error")
        elif drawn and fate < 0.01:  # one row's logits were not finite
            row = next(row for row in rows if row.samples)
            memory.spoil(row)
            failed.add(row.seq)
            scheduler.commit(rows, [-1, *drawn[1:]])
        else:
            scheduler.commit(rows, drawn)
        check_books(scheduler)
        if fate > 0.99:  # someone uses a few blocks for another purpose
            borrowed = scheduler.borrow(rng.randint(1, n_blocks))
            memory.scribble(borrowed)
            scheduler.blocks.release(borrowed)
            check_books(scheduler)
        steps_left -= 1
        assert steps_left > 0, "somebody starves"

    for seq in sequences:
        assert seq.state is State.FINISHED
        answer = seq.tokens[prompts[seq] :].tolist()
        if seq in cancelled:
            assert answer == expected[seq][: len(answer)] and seq.finish_reason == "abort"
        elif seq in failed:
            assert answer == expected[seq][: len(answer)] and seq.finish_reason == "error"
        else:
            assert answer == expected[seq]
            assert seq.finish_reason == ("stop" if answer[-1] in seq.stop_tokens else "length")
    assert len(scheduler.blocks.free) == n_blocks
    return scheduler


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_workloads(batch: int) -> None:
    preemptions = recomputed = 0
    for seed in range(batch, WORKLOADS, BATCHES):
        try:
            scheduler = run_workload(seed)
        except BaseException as error:
            error.add_note(f"workload {seed}: run_workload({seed}) repeats it")
            raise
        preemptions += scheduler.preemptions
        recomputed += scheduler.recomputed_blocks
    assert preemptions > WORKLOADS / BATCHES / 2, "these workloads preempt too little to prove anything"
    assert recomputed > 0
