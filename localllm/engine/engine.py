"""The engine thread: it takes requests, schedules, runs, commits and hands out tokens, step after step.

Everything that touches the scheduler or the runner happens on this one thread; others leave actions in its inbox and
read the answers from handles. Between steps the inbox is emptied, so a cancellation takes effect within one step.
A step is one more token for every answer, and then so much of a pass over prompts as answers may wait for. What fails
ends its own requests, those of the answers or those of the pass; the others go on. Without work the thread sleeps.
The engine knows tokens only: stop texts are found where text is made, which then aborts the request.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from localllm.engine.pace import Pace
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import FinishReason, Mask, Row, Sampled, Sequence, State
from localllm.errors import (
    ClosedError,
    DeviceError,
    ForkError,
    FormError,
    InvalidArgument,
    LocalLLMError,
    MemoryLimitError,
)
from localllm.params import SamplingParams

if TYPE_CHECKING:
    import asyncio  # takes longer to import than the engine to start, and a command line never needs it

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Runner(Protocol):
    """What computes; see engine/runner.py for the real one."""

    @property
    def n_vocab(self) -> int: ...

    def step(self, rows: list[Row]) -> list[Sampled]: ...

    def begin(self, rows: list[Row]) -> None: ...

    def advance(self, seconds: float) -> list[Sampled] | None: ...

    def logits(self, tokens: array[int], blocks: list[int]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Stats:
    """What an engine has done so far, and what it holds now."""

    steps: int
    computed_tokens: int  # of prompts and answers, recomputed ones included
    generated_tokens: int
    cached_tokens: int  # that were taken from the prefix cache instead
    preemptions: int
    recomputed_blocks: int  # full blocks that preemption made compute again
    scheduler_seconds: float
    runner_seconds: float
    running: int
    waiting: int
    blocks: int
    blocks_free: int  # of these
    blocks_cached: int  # hold a prefix that may be met again, whether free or in use


Receiver = Callable[[Sampled | None], None]  # of what one step gave a request; it must not raise


class Handle:
    """The answer to one request while it is made: an iterator of Sampled, for one reader.

    `for` in any thread; or, if the request was submitted with a loop, `async for` in that loop. It ends with the
    answer, or raises the error that ended it. Used as a context manager it aborts the request when it is left early.
    One submitted with a receiver is not iterated: the loop calls that with each Sampled, and with None at the end.
    """

    def __init__(
        self, engine: Engine, seq: Sequence, loop: asyncio.AbstractEventLoop | None, receiver: Receiver | None
    ) -> None:
        self._engine = engine
        self.seq = seq
        self.loop = loop
        self.error: LocalLLMError | None = None
        self._queue: SimpleQueue[Sampled | None] = SimpleQueue()  # None is the end
        self._async_queue = None if loop is None or receiver is not None else _async_queue()
        self._receiver = receiver

    @property
    def prompt_tokens(self) -> int:
        return self.seq.prompt_length

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache had; known with the first token."""
        return self.seq.cached

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the answer is complete."""
        return self.seq.finish_reason

    def abort(self) -> None:
        """End the request within a step; what was drawn until then can still be read. Does nothing if it has ended."""
        self._engine.abort(self)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def __iter__(self) -> Iterator[Sampled]:
        return self

    def __next__(self) -> Sampled:
        self._engine.check_process()
        item = self._queue.get()
        if item is None:
            self._queue.put(None)
            raise self.error or StopIteration
        return item

    def __aiter__(self) -> AsyncIterator[Sampled]:
        return self

    async def __anext__(self) -> Sampled:
        self._engine.check_process()
        if self._async_queue is None:
            raise InvalidArgument("this request was submitted without an event loop: read it with `for`")
        item = await self._async_queue.get()
        if item is None:
            self._async_queue.put_nowait(None)
            raise self.error or StopAsyncIteration
        return item


def hand_out(items: list[tuple[Handle, Sampled | None]]) -> list[Handle]:
    """Give readers what is theirs, waking each loop once. Returns the handles whose loop has been closed."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Handle, Sampled | None]]] = {}
    for handle, item in items:
        if handle.loop is None:
            handle._queue.put(item)
        else:
            by_loop.setdefault(handle.loop, []).append((handle, item))
    deserted: list[Handle] = []
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, batch)
        except RuntimeError:
            deserted += [handle for handle, _ in batch]
    return deserted


def _async_queue() -> asyncio.Queue[Sampled | None]:
    import asyncio

    return asyncio.Queue()


def _put_all(batch: list[tuple[Handle, Sampled | None]]) -> None:
    for handle, item in batch:
        if handle._receiver is not None:
            handle._receiver(item)
        elif handle._async_queue is not None:
            handle._async_queue.put_nowait(item)


class Engine:
    """Needs a pool that holds one sequence of `context` tokens, and a runner for passes of `step_tokens` tokens (or one
    for each row, if that is more). Prompts add at most about `step_seconds` to a step of all answers (engine/pace.py).
    Every method may be called from any thread."""

    def __init__(
        self, runner: Runner, scheduler: Scheduler, *, context: int, step_tokens: int, step_seconds: float = inf
    ) -> None:
        room = scheduler.blocks.n_blocks * scheduler.blocks.block_size
        if room < context:
            raise MemoryLimitError(f"the KV pool holds {room} tokens, but the context is {context} tokens")
        if step_tokens < 1:
            raise InvalidArgument(f"step_tokens must be at least 1, not {step_tokens}")
        self._runner = runner
        self._scheduler = scheduler
        self._context = context
        self._step_tokens = step_tokens
        self._pace = Pace(step_seconds)
        self._handles: dict[Sequence, Handle] = {}
        self._prompts: list[Row] = []  # of the pass that is under way
        self._prompts_seconds = 0.0  # that it has taken
        self._computed_tokens = self._generated_tokens = 0
        self._scheduler_seconds = self._runner_seconds = 0.0
        self._wake = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._closing = False
        self.failure: Exception | None = None  # what ended the engine thread, if it was not close()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._live, name="localllm-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon thread must not be inside the library while the process unloads it

    # ---- for any thread ----

    def submit(
        self,
        tokens: Iterable[int],
        params: SamplingParams,
        *,
        seed: int = 0,
        choice: int = 0,
        stop_tokens: frozenset[int] = frozenset(),
        salt: bytes = b"",
        client: str = "",
        mask: Mask | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        receiver: Receiver | None = None,
    ) -> Handle:
        """Start a request. The answer ends with one of `stop_tokens` (unless params.ignore_eos), after
        params.max_tokens, or where the context ends. Clients take turns. InvalidArgument if the prompt leaves no room
        for an answer."""
        prompt = self._checked(tokens, self._context - 1)
        if wrong := [token for token in params.logit_bias if token >= self._runner.n_vocab]:
            raise InvalidArgument(f"logit_bias has token {wrong[0]}, but ids go from 0 to {self._runner.n_vocab - 1}")
        seq = Sequence(
            prompt,
            params,
            max_length=min(self._context, len(prompt) + (params.max_tokens or self._context)),
            seed=seed,
            choice=choice,
            stop_tokens=frozenset() if params.ignore_eos else stop_tokens,
            salt=salt,
            client=client,
            mask=mask,
        )
        handle = Handle(self, seq, loop, receiver)
        self._post(partial(self._add, handle))
        return handle

    def abort(self, handle: Handle) -> None:
        self.check_process()
        if handle.finish_reason is None:
            self._post(partial(self._end, handle, "abort"), even_closing=True)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the engine thread between two steps, and wait for what it returns or raises."""
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()
        self._post(partial(_answer, future, function))
        return future.result()

    def logits(self, tokens: Iterable[int]) -> Any:
        """float32 array (len(tokens), vocabulary): the logits after each token. Others wait meanwhile."""
        return self.call(partial(self._logits, self._checked(tokens, self._context)))

    @property
    def stats(self) -> Stats:
        scheduler, blocks = self._scheduler, self._scheduler.blocks
        return Stats(
            steps=scheduler.steps,
            computed_tokens=self._computed_tokens,
            generated_tokens=self._generated_tokens,
            cached_tokens=scheduler.cached_tokens,
            preemptions=scheduler.preemptions,
            recomputed_blocks=scheduler.recomputed_blocks,
            scheduler_seconds=self._scheduler_seconds,
            runner_seconds=self._runner_seconds,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            blocks=blocks.n_blocks,
            blocks_free=len(blocks.free),
            blocks_cached=len(blocks.block_of),
        )

    def close(self, drain: bool = False) -> None:
        """Take no more requests; end those there are (finish_reason "abort"), or let them finish if `drain`.
        Returns when the thread has stopped. May be called again."""
        if os.getpid() != self._pid:
            return  # the thread lives in the parent process
        atexit.unregister(self.close)
        with self._wake:
            self._closing = True
            if not drain:
                self._inbox.append(self._end_all)
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkError(
                f"this engine belongs to process {self._pid}: a model must be loaded after fork(), not before"
            )

    def _post(self, action: Callable[[], None], even_closing: bool = False) -> None:
        self.check_process()
        with self._wake:
            if self._closing and not even_closing:
                raise ClosedError("the engine is closed")
            self._inbox.append(action)
            self._wake.notify()

    def _checked(self, tokens: Iterable[int], most: int) -> array[int]:
        ids = list(tokens)
        if not 0 < len(ids) <= most:
            raise InvalidArgument(
                f"the prompt has {len(ids)} tokens, but must have from 1 to {most} in a context of {self._context}"
            )
        if min(ids) < 0 or max(ids) >= self._runner.n_vocab:
            wrong = next(i for i in ids if not 0 <= i < self._runner.n_vocab)
            raise InvalidArgument(f"token ids go from 0 to {self._runner.n_vocab - 1}, but the prompt has {wrong}")
        return array("i", ids)

    # ---- on the engine thread ----

    def _live(self) -> None:
        try:
            while self._empty_inbox():
                if self._handles:
                    self._step()
        except Exception as problem:
            self._die(problem)

    def _die(self, problem: Exception) -> None:
        """A defect of ours, and the scheduler is not to be trusted any more. But nobody may wait for ever."""
        _log.error("the engine has stopped: %r", problem, exc_info=problem)
        with self._wake:
            self._closing, self.failure = True, problem
        while self._inbox:
            with suppress(Exception):
                self._inbox.popleft()()
        for handle in self._handles.values():
            handle.seq.finish_reason, handle.error = "error", _as_error(problem)
        hand_out([(handle, None) for handle in self._handles.values()])
        self._handles.clear()

    def _empty_inbox(self) -> bool:
        """Do what was asked for, waiting if there is nothing else to do. False if there never will be."""
        with self._wake:
            while not (self._inbox or self._handles or self._closing):
                self._wake.wait()
            actions = len(self._inbox)
        for _ in range(actions):
            self._inbox.popleft()()
        return bool(self._handles) or not self._closing

    def _step(self) -> None:
        rows = self._timed(self._scheduler.decode)
        if rows and (sampled := self._attempt(rows, partial(self._runner.step, rows))) is not None:
            self._commit(rows, sampled)
        if not self._prompts:
            self._begin_prompts()
        if self._prompts:
            answering = sum(row.seq in self._handles for row in rows)
            joining = min(len(self._handles), self._scheduler.max_rows) - answering
            self._advance_prompts(self._pace.seconds(answering, joining))

    def _begin_prompts(self) -> None:
        budget = self._pace.tokens(self._step_tokens)
        self._prompts = self._timed(partial(self._scheduler.prefill, budget))
        self._prompts_seconds = 0.0
        if self._prompts:
            self._attempt(self._prompts, partial(self._runner.begin, self._prompts))

    def _advance_prompts(self, seconds: float) -> None:
        rows, before = self._prompts, self._runner_seconds
        sampled = self._attempt(rows, partial(self._runner.advance, seconds))
        self._prompts_seconds += self._runner_seconds - before
        if sampled is not None:
            self._prompts = []
            self._pace.learn(sum(row.count for row in rows), self._prompts_seconds)
            self._commit(rows, sampled)

    def _give_up_prompts(self) -> None:
        self._scheduler.abandon(self._prompts)
        self._prompts = []

    def _timed(self, function: Callable[[], T]) -> T:
        started = perf_counter()
        result = function()
        self._scheduler_seconds += perf_counter() - started
        return result

    def _attempt(self, rows: list[Row], compute: Callable[[], T]) -> T | None:
        """What the runner returns. If it fails, None, and the requests of these rows end."""
        started = perf_counter()
        try:
            return compute()
        except Exception as problem:
            for handle in [self._handles[row.seq] for row in rows if row.seq in self._handles]:
                self._end(handle, "error", _as_error(problem))
            if rows is self._prompts:
                self._give_up_prompts()
            return None
        finally:
            self._runner_seconds += perf_counter() - started

    def _commit(self, rows: list[Row], sampled: list[Sampled]) -> None:
        self._timed(partial(self._scheduler.commit, rows, [drawn.token for drawn in sampled]))
        self._computed_tokens += sum(row.count for row in rows)
        self._generated_tokens += sum(row.samples and row.seq in self._handles for row in rows)
        self._publish(rows, sampled)

    def _publish(self, rows: list[Row], sampled: list[Sampled]) -> None:
        items: list[tuple[Handle, Sampled | None]] = []
        for row, drawn in zip([row for row in rows if row.samples], sampled, strict=True):
            seq, handle = row.seq, self._handles.get(row.seq)
            if handle is None:
                continue  # it was ended in flight
            if drawn.token < 0:
                handle.error = _why_none(seq)
            else:
                items.append((handle, drawn))
                if seq.mask is not None:
                    seq.mask.accept(drawn.token)
            if seq.state is State.FINISHED:
                items.append((handle, None))
                del self._handles[seq]
        for handle in hand_out(items):
            self._end(handle, "abort")

    def _add(self, handle: Handle) -> None:
        self._handles[handle.seq] = handle
        self._scheduler.add(handle.seq)

    def _end(self, handle: Handle, reason: FinishReason, error: LocalLLMError | None = None) -> None:
        if self._handles.pop(handle.seq, None) is not None:
            self._scheduler.finish(handle.seq, reason)
            if not any(row.seq in self._handles for row in self._prompts):
                self._give_up_prompts()  # nobody wants them any more
            handle.error = error
            hand_out([(handle, None)])

    def _end_all(self, error: LocalLLMError | None = None) -> None:
        for handle in list(self._handles.values()):
            self._end(handle, "error" if error else "abort", error)

    def _logits(self, tokens: array[int]) -> Any:
        while self._prompts:
            self._advance_prompts(inf)
        blocks = self._scheduler.borrow(-(-len(tokens) // self._scheduler.blocks.block_size))
        try:
            return self._runner.logits(tokens, blocks)
        finally:
            self._scheduler.blocks.release(blocks)


def _answer(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as problem:
        future.set_exception(problem)


def _why_none(seq: Sequence) -> LocalLLMError:
    """Why no token was drawn for a sequence."""
    if seq.mask is not None and seq.mask.closed:
        return FormError("the answer came to a place where no token goes on in the form that it must have")
    return DeviceError("the logits of this request are not finite")


def _as_error(problem: Exception) -> LocalLLMError:
    """One of our own, new for each request, since it will be raised in as many threads."""
    kind = type(problem) if isinstance(problem, LocalLLMError) else DeviceError
    error = kind(str(problem) or repr(problem))
    error.__cause__ = problem
    return error
