"""The engine thread, with a runner that needs no library: many readers, both kinds of iteration, and every bad end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest

from localllm.engine.block_manager import BlockManager
from localllm.engine.engine import Engine, Handle
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import Row, Sampled, Sequence
from localllm.errors import ClosedError, DeviceError, ForkError, InvalidArgument, MemoryLimitError
from localllm.params import SamplingParams
from tests.engine.simulation import VOCABULARY, Memory, check_books, oracle

CONTEXT = 64


class FakeRunner:
    """Simulated memory; `before` is called ahead of each step, `gate` holds all steps back while it is clear. A pass
    over prompts takes `layers` calls of advance(), or one without a limit."""

    n_vocab = VOCABULARY
    layers = 1

    def __init__(self, blocks: BlockManager) -> None:
        self.memory = Memory(blocks)
        self.steps: list[list[Row]] = []  # and passes, when they are done
        self.prompts: list[Row] = []
        self.left = 0
        self.limits: list[float] = []  # in seconds, of each advance()
        self.gate = threading.Event()
        self.gate.set()
        self.before: Callable[[list[Row]], object] = lambda rows: None

    def step(self, rows: list[Row]) -> list[Sampled]:
        self.gate.wait()
        self.steps.append(rows)
        self.before(rows)
        return [Sampled(token) for token in self.memory.run(rows)]

    def begin(self, rows: list[Row]) -> None:
        self.prompts, self.left = rows, self.layers
        self.memory.begin(rows)

    def advance(self, seconds: float) -> list[Sampled] | None:
        self.limits.append(seconds)
        self.left = 0 if seconds == inf else self.left - 1
        if self.left <= 0:
            return self.step(self.prompts)
        self.gate.wait()
        return None

    def logits(self, tokens: array[int], blocks: list[int]) -> list[int]:
        self.memory.scribble(blocks)
        return list(tokens)


class World:
    def __init__(self, n_blocks: int = 64, max_rows: int = 8, layers: int = 1) -> None:
        self.scheduler = Scheduler(BlockManager(n_blocks, 4), max_rows)
        self.runner = FakeRunner(self.scheduler.blocks)
        self.runner.layers = layers
        seconds = inf if layers == 1 else 0.1
        self.engine = Engine(self.runner, self.scheduler, context=CONTEXT, step_tokens=16, step_seconds=seconds)

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not self.engine.call(true):
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.001)

    def check_nothing_left(self) -> None:
        self.wait_until(lambda: not self.scheduler.unfinished)
        self.engine.call(lambda: check_books(self.scheduler))
        assert len(self.scheduler.blocks.free) == self.scheduler.blocks.n_blocks


@pytest.fixture
def world() -> Iterator[World]:
    with opened() as one:
        yield one


@contextmanager
def opened(**sizes: int) -> Iterator[World]:
    one = World(**sizes)
    try:
        yield one
    finally:
        one.runner.gate.set()
        one.engine.close()


def expected(prompt: list[int], seed: int = 0, choice: int = 0, **params: int) -> list[int]:
    limit = min(CONTEXT, len(prompt) + params.get("max_tokens", CONTEXT))
    return oracle(Sequence(array("i", prompt), SamplingParams(), limit, seed=seed, choice=choice))


def tokens_of(handle: Handle) -> list[int]:
    return [drawn.token for drawn in handle]


def test_one_answer(world: World) -> None:
    handle = world.engine.submit([1, 2, 3], SamplingParams(max_tokens=10), seed=7)
    assert tokens_of(handle) == expected([1, 2, 3], 7, max_tokens=10)
    assert (handle.finish_reason, handle.prompt_tokens, handle.cached_tokens) == ("length", 3, 0)
    assert tokens_of(handle) == [], "an answer that has been read is over"
    world.check_nothing_left()


def test_without_a_limit_it_fills_the_context(world: World) -> None:
    handle = world.engine.submit([1, 2, 3], SamplingParams())
    assert len(tokens_of(handle)) == CONTEXT - 3


def test_stop_tokens_end_it_unless_ignored(world: World) -> None:
    whole = expected([5], max_tokens=20)
    stops = frozenset([whole[6]])
    first = whole.index(whole[6])
    handle = world.engine.submit([5], SamplingParams(max_tokens=20), stop_tokens=stops)
    assert tokens_of(handle) == whole[: first + 1]
    assert handle.finish_reason == "stop"
    ignoring = world.engine.submit([5], SamplingParams(max_tokens=20, ignore_eos=True), stop_tokens=stops)
    assert tokens_of(ignoring) == whole


def test_a_second_request_finds_the_first_ones_prefix(world: World) -> None:
    prompt = list(range(40))
    tokens_of(world.engine.submit(prompt, SamplingParams(max_tokens=1)))
    handle = world.engine.submit([*prompt[:30], 9], SamplingParams(max_tokens=1))
    tokens_of(handle)
    assert handle.cached_tokens == 28
    assert world.engine.stats.cached_tokens == 28


def test_many_threads(world: World) -> None:
    answers: dict[int, list[int]] = {}

    def client(number: int) -> None:
        for turn in range(5):
            prompt = [number % 7, turn, *range(number % 11)]
            found = tokens_of(world.engine.submit(prompt, SamplingParams(max_tokens=12), seed=number))
            answers[number * 5 + turn] = found
            assert found == expected(prompt, number, max_tokens=12)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 80
    world.check_nothing_left()


def test_many_tasks_of_a_loop() -> None:
    async def client(engine: Engine, number: int) -> list[int]:
        handle = engine.submit([number, 1], SamplingParams(max_tokens=12), seed=number, loop=asyncio.get_running_loop())
        return [drawn.token async for drawn in handle]

    async def main(engine: Engine) -> list[list[int]]:
        return await asyncio.gather(*[client(engine, number) for number in range(20)])

    with opened() as world:
        answers = asyncio.run(main(world.engine))
        world.check_nothing_left()
    assert answers == [expected([number, 1], number, max_tokens=12) for number in range(20)]


def test_a_loop_is_woken_once_a_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        loop, wakes = asyncio.get_running_loop(), 0
        wake = loop.call_soon_threadsafe

        def counted(*args: object) -> object:
            nonlocal wakes
            wakes += 1
            return wake(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        world.runner.gate.clear()
        handles = [world.engine.submit([n], SamplingParams(max_tokens=10), loop=loop) for n in range(8)]
        world.runner.gate.set()
        for handle in handles:
            assert len([drawn async for drawn in handle]) == 10
        return wakes

    assert asyncio.run(main()) <= len(world.runner.steps)


def test_abort_takes_effect_within_a_step(world: World) -> None:
    world.runner.before = lambda rows: time.sleep(0.005)
    other = world.engine.submit([1], SamplingParams(max_tokens=30))
    handle = world.engine.submit([2], SamplingParams())
    next(handle)
    world.runner.gate.clear()
    handle.abort()
    steps = len(world.runner.steps)
    world.runner.gate.set()
    rest = tokens_of(handle)
    assert handle.finish_reason == "abort"
    assert all(handle.seq not in {row.seq for row in rows} for rows in world.runner.steps[steps + 2 :])
    assert [*rest] == expected([2])[1 : len(rest) + 1]
    assert tokens_of(other) == expected([1], max_tokens=30)
    handle.abort()
    world.check_nothing_left()


def test_answers_go_on_while_prompts_are_computed() -> None:
    """A layer of the pass after each step, and no longer than answers may wait."""
    with opened(layers=5) as world:
        world.runner.before = lambda rows: time.sleep(0.002)
        writing = world.engine.submit([1], SamplingParams(), seed=2)
        first = next(writing)
        world.runner.gate.clear()
        world.runner.limits.clear()
        prompts = [[*range(n, n + 30)] for n in range(3)]
        reading = [world.engine.submit(prompt, SamplingParams(max_tokens=4)) for prompt in prompts]
        world.runner.gate.set()
        assert [tokens_of(handle) for handle in reading] == [expected(prompt, max_tokens=4) for prompt in prompts]
        assert [first.token, *tokens_of(writing)] == expected([1], 2)
        passes = [i for i, rows in enumerate(world.runner.steps) if rows[0].count > 1]
        assert len(passes) >= 6 and all(later - sooner == 6 for sooner, later in pairwise(passes))
        limits = world.engine.call(lambda: world.runner.limits[:])
        assert 0.1 <= min(limits) < max(limits), "some wait to be answered"
        world.check_nothing_left()


def test_answers_that_end_together_take_no_time_from_prompts() -> None:
    with opened(layers=3) as world:
        world.runner.gate.clear()
        handles = [world.engine.submit([n], SamplingParams(max_tokens=3)) for n in range(6)]
        handles.append(world.engine.submit(range(40), SamplingParams(max_tokens=1)))
        world.runner.gate.set()
        assert [len(tokens_of(handle)) for handle in handles] == [3] * 6 + [1]
        assert min(world.runner.limits) >= 0.1
        world.check_nothing_left()
        assert world.engine.stats.generated_tokens == 19


def test_who_is_ended_in_flight_is_gone_at_once_and_its_blocks_when_the_pass_is_done() -> None:
    with opened(layers=10**6) as world:
        world.runner.gate.clear()
        stays, goes = (world.engine.submit([*range(n, n + 7)], SamplingParams(max_tokens=9)) for n in (1, 20))
        world.runner.gate.set()
        world.wait_until(lambda: len(world.scheduler.in_flight) == 2)
        goes.abort()
        assert tokens_of(goes) == [] and goes.finish_reason == "abort"
        assert world.engine.stats.blocks_free == 60 and world.engine.stats.running == 1
        world.runner.left = 2
        assert tokens_of(stays) == expected([*range(1, 8)], max_tokens=9)
        world.check_nothing_left()
        assert world.engine.stats.generated_tokens == 9, "what nobody got is not counted"


def test_a_pass_that_nobody_wants_any_more_is_given_up() -> None:
    with opened(layers=10**6) as world:
        handles = [world.engine.submit([*range(n, n + 7)], SamplingParams()) for n in (1, 20)]
        world.wait_until(lambda: len(world.scheduler.in_flight) == 2)
        for handle in handles:
            handle.abort()
        world.check_nothing_left()
        world.runner.layers = 2
        assert tokens_of(world.engine.submit([5], SamplingParams(max_tokens=3))) == expected([5], max_tokens=3)


def test_a_pass_and_a_step_that_fail_end_their_own_requests_only() -> None:
    for failing in ("pass", "step"):
        with opened(layers=4) as world:
            world.runner.before = lambda rows: time.sleep(0.002)
            writing = world.engine.submit([1], SamplingParams(max_tokens=40))
            next(writing)

            def fail(rows: list[Row], failing: str = failing) -> None:
                if world.scheduler.in_flight and (rows[0].count > 1) == (failing == "pass"):
                    raise DeviceError("the device is on fire")

            world.runner.before = fail
            reading = world.engine.submit(range(9), SamplingParams(max_tokens=1))
            victim, survivor = (reading, writing) if failing == "pass" else (writing, reading)
            with pytest.raises(DeviceError, match="on fire"):
                tokens_of(victim)
            assert tokens_of(survivor) == (expected([1], max_tokens=40)[1:] if survivor is writing else
                                           expected([*range(9)], max_tokens=1))  # fmt: skip
            world.check_nothing_left()


def test_logits_while_prompts_are_computed() -> None:
    with opened(layers=10**6, n_blocks=16) as world:
        writing = world.engine.submit([*range(9)], SamplingParams(max_tokens=3))
        world.wait_until(lambda: len(world.scheduler.in_flight) == 1)
        assert world.engine.logits([3] * 60) == [3] * 60, "the pass is computed to its end first"
        assert tokens_of(writing) == expected([*range(9)], max_tokens=3)
        world.check_nothing_left()


def test_leaving_a_handle_aborts_it(world: World) -> None:
    with world.engine.submit([2], SamplingParams()) as handle:
        next(handle)
    world.check_nothing_left()
    assert handle.finish_reason in ("abort", "length")


def test_abort_of_one_that_waits(world: World) -> None:
    world.runner.gate.clear()
    handles = [world.engine.submit([n], SamplingParams(max_tokens=5)) for n in range(12)]
    handles[11].abort()
    world.runner.gate.set()
    assert tokens_of(handles[11]) == []
    assert [len(tokens_of(handle)) for handle in handles[:11]] == [5] * 11


def test_a_failing_step_ends_its_own_requests_only(world: World) -> None:
    world.runner.gate.clear()
    handles = [world.engine.submit([n], SamplingParams(max_tokens=5)) for n in range(12)]
    victims: set[Sequence] = set()

    def fail_once(rows: list[Row]) -> None:
        if len(rows) == 8 and not victims:
            victims.update(row.seq for row in rows)
            raise DeviceError("the device is on fire")

    world.runner.before = fail_once
    world.runner.gate.set()
    for number, handle in enumerate(handles):
        if handle.seq in victims or number < 8:
            with pytest.raises(DeviceError, match="on fire"):
                tokens_of(handle)
            assert handle.finish_reason == "error"
        else:
            assert tokens_of(handle) == expected([number], max_tokens=5)
    assert len(victims) == 8
    world.check_nothing_left()


def test_an_error_of_another_kind_has_a_name_too(world: World) -> None:
    def fail(rows: list[Row]) -> None:
        raise ZeroDivisionError("surprise")

    world.runner.before = fail
    with pytest.raises(DeviceError, match="surprise"):
        tokens_of(world.engine.submit([1], SamplingParams()))


def test_a_row_that_is_not_finite_ends_alone(world: World) -> None:
    run = world.runner.memory.run

    def poisoned(rows: list[Row]) -> list[int]:
        drawn = run(rows)
        sampling = [row.seq for row in rows if row.samples]
        return [-1 if seq.tokens[0] == 3 else token for seq, token in zip(sampling, drawn, strict=True)]

    world.runner.memory.run = poisoned  # type: ignore[method-assign]
    handles = [world.engine.submit([n], SamplingParams(max_tokens=5)) for n in range(6)]
    for number, handle in enumerate(handles):
        if number == 3:
            with pytest.raises(DeviceError, match="not finite"):
                tokens_of(handle)
            assert handle.finish_reason == "error"
        else:
            assert tokens_of(handle) == expected([number], max_tokens=5)
    world.check_nothing_left()


def test_close_ends_what_runs(world: World) -> None:
    handles = [world.engine.submit([n], SamplingParams()) for n in range(20)]
    next(handles[0])
    world.engine.close()
    for handle in handles:
        tokens_of(handle)
        assert handle.finish_reason in ("abort", "length")
    with pytest.raises(ClosedError):
        world.engine.submit([1], SamplingParams())
    with pytest.raises(ClosedError):
        world.engine.call(lambda: 1)
    handles[0].abort()
    world.engine.close()


def test_close_may_drain(world: World) -> None:
    handles = [world.engine.submit([n], SamplingParams(max_tokens=9)) for n in range(20)]
    world.engine.close(drain=True)
    assert [tokens_of(handle) for handle in handles] == [expected([n], max_tokens=9) for n in range(20)]


def test_draining_can_be_cut_short(world: World) -> None:
    world.runner.before = lambda rows: time.sleep(0.01)
    handles = [world.engine.submit([n], SamplingParams()) for n in range(20)]
    draining = threading.Thread(target=world.engine.close, args=(True,))
    draining.start()
    handles[3].abort()
    tokens_of(handles[3])
    assert handles[3].finish_reason == "abort"
    world.engine.close()
    draining.join(10)
    assert not draining.is_alive()
    assert {handle.finish_reason for handle in handles} == {"abort"}


def test_a_defect_of_the_scheduler_leaves_nobody_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.runner.gate.clear()
    handles = [world.engine.submit([n], SamplingParams()) for n in range(3)]

    def broken(*_: object) -> None:
        raise IndexError("a defect")

    monkeypatch.setattr(world.scheduler, "commit", broken)
    world.runner.gate.set()
    for handle in handles:
        with pytest.raises(DeviceError, match="a defect"):
            tokens_of(handle)
    with pytest.raises(ClosedError):
        world.engine.submit([1], SamplingParams())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork() in a process with threads
def test_use_after_fork_is_an_error(world: World) -> None:
    world.runner.gate.clear()
    handle = world.engine.submit([1], SamplingParams(max_tokens=2))
    child = os.fork()
    if child == 0:
        caught = 0
        uses = (
            lambda: world.engine.submit([1], SamplingParams()),
            lambda: next(handle),
            handle.abort,
            lambda: world.engine.logits([1]),
        )
        for use in uses:
            try:
                use()
            except ForkError:
                caught += 1
        world.engine.close()
        os._exit(caught)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    world.runner.gate.set()
    assert tokens_of(handle) == expected([1], max_tokens=2), "the parent goes on"


def test_an_idle_engine_sleeps(world: World) -> None:
    tokens_of(world.engine.submit([1], SamplingParams(max_tokens=2)))
    steps, busy = world.engine.stats.steps, time.process_time()
    time.sleep(0.3)
    assert time.process_time() - busy < 0.1
    assert world.engine.stats.steps == steps


def test_a_closed_loop_frees_its_requests(world: World) -> None:
    async def leave() -> Handle:
        return world.engine.submit([1], SamplingParams(), loop=asyncio.get_running_loop())

    world.runner.gate.clear()
    handle = asyncio.run(leave())
    world.runner.gate.set()
    world.check_nothing_left()
    assert handle.finish_reason == "abort"


def test_refused_prompts_state_both_numbers(world: World) -> None:
    with pytest.raises(InvalidArgument, match=r"64 tokens.* 1 to 63 .* 64"):
        world.engine.submit([1] * 64, SamplingParams())
    with pytest.raises(InvalidArgument, match="0 tokens"):
        world.engine.submit([], SamplingParams())
    with pytest.raises(InvalidArgument, match="0 to 49, but the prompt has 50"):
        world.engine.submit([1, 50], SamplingParams())
    with pytest.raises(InvalidArgument, match="has -1"):
        world.engine.submit([1, -1], SamplingParams())
    with pytest.raises(InvalidArgument, match="logit_bias has token 50"):
        world.engine.submit([1], SamplingParams(logit_bias={50: 1.0}))
    assert len(tokens_of(world.engine.submit([1] * 63, SamplingParams()))) == 1
    with pytest.raises(MemoryLimitError, match=r"holds 60 tokens.* 64 tokens"), opened(n_blocks=15):
        pass


def test_call_and_logits(world: World) -> None:
    with opened(n_blocks=16) as small:
        handles = [small.engine.submit([n], SamplingParams(), seed=3) for n in range(4)]
        next(handles[0])
        assert small.engine.call(lambda: threading.current_thread().name) == "localllm-engine"
        assert small.engine.call(lambda: small.engine.call(lambda: 5)) == 5
        with pytest.raises(ZeroDivisionError):
            small.engine.call(lambda: 1 // 0)
        assert small.engine.logits(range(40)) == list(range(40))
        with pytest.raises(InvalidArgument, match="65 tokens"):
            small.engine.logits([1] * 65)
        rest = [tokens_of(handle) for handle in handles]
        assert rest == [expected([0], 3)[1:]] + [expected([n], 3) for n in range(1, 4)]
        small.check_nothing_left()


def test_choices_of_one_request(world: World) -> None:
    params = SamplingParams(max_tokens=8)
    handles = [world.engine.submit(range(21), params, seed=4, choice=choice) for choice in range(3)]
    answers = [tokens_of(handle) for handle in handles]
    assert answers == [expected(list(range(21)), 4, choice, max_tokens=8) for choice in range(3)]
    assert answers[0] == tokens_of(world.engine.submit(range(21), params, seed=4))


def test_stats_are_a_snapshot(world: World) -> None:
    before = world.engine.stats
    tokens_of(world.engine.submit(range(10), SamplingParams(max_tokens=5)))
    world.engine.call(lambda: None)
    after = world.engine.stats
    assert before.steps == 0
    assert (after.computed_tokens, after.generated_tokens, after.steps) == (14, 5, 5)
    assert (after.running, after.waiting, after.blocks, after.blocks_free, after.blocks_cached) == (0, 0, 64, 64, 3)
    assert after.scheduler_seconds > 0


class Always:
    """A mask that counts what it is told."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def fill(self, bits: memoryview) -> None:
        bits[:] = b"\xff" * len(bits)

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_a_mask_hears_every_token(world: World) -> None:
    mask = Always()
    assert tokens_of(world.engine.submit([4], SamplingParams(max_tokens=6), mask=mask)) == mask.accepted


ABANDONED = """
import os, signal, threading
from localllm.params import SamplingParams
from tests.engine.test_engine import World

world = World()
world.runner.gate.clear()
handle = world.engine.submit([1], SamplingParams())
threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    next(handle)
except KeyboardInterrupt:
    print("interrupted", flush=True)
world.runner.gate.set()
world.runner.before = lambda rows: threading.Event().wait(0.01)
"""


def test_a_reader_can_be_interrupted_and_a_process_ends_without_close() -> None:
    command = [sys.executable, "-c", ABANDONED]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_receiver_is_called_in_the_loop_with_each_token_and_the_end(world: World) -> None:
    async def ask() -> tuple[list[Sampled | None], set[int]]:
        got: list[Sampled | None] = []
        threads: set[int] = set()
        ended = asyncio.Event()

        def receive(item: Sampled | None) -> None:
            got.append(item)
            threads.add(threading.get_ident())
            if item is None:
                ended.set()

        world.engine.submit([1, 2, 3], SamplingParams(max_tokens=6), loop=asyncio.get_running_loop(), receiver=receive)
        await ended.wait()
        return got, threads

    got, threads = asyncio.run(ask())
    expected = oracle(Sequence(array("i", [1, 2, 3]), SamplingParams(max_tokens=6), max_length=9))
    assert [item.token for item in got if item] == expected and got[-1] is None and len(got) == 7
    assert threads == {threading.get_ident()}
    world.check_nothing_left()
