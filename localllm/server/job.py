"""The answers to one request while the engine makes them: several prompts, several choices of each, one reader.

Everything here happens in the event loop. The engine hands over what a step gave to all requests at once; each choice
turns its part into a Piece there and then, and the reader is woken once, however many pieces came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from localllm.engine.engine import Receiver
from localllm.engine.sequence import Sampled
from localllm.errors import ClosedError, DeviceError
from localllm.params import SamplingParams
from localllm.text.calls import Call, CallReader, Format

if TYPE_CHECKING:
    from localllm.generation import Answer
    from localllm.llm import LLM, Request


MOST_UNREAD = 1 << 20  # bytes of an answer whose client does not read; sockets hold some more


@dataclass(slots=True)
class Piece:
    """One token of a choice, or its end: what a client is told in one event."""

    choice: int
    sampled: Sampled | None  # None: the end, and `finish` says why
    text: str = ""
    reasoning: str = ""
    calls: Sequence[Call] = ()
    finish: str = ""


class UnreadAnswer(Exception):  # noqa: N818 - it is told to a client, as a Problem
    """Ends an answer whose client does not take it."""


def weight(sampled: Sampled | None) -> int:
    """About how many bytes a piece takes while it waits, and as an event."""
    return 256 if sampled is None else 256 + 96 * len(sampled.top)


class Meter(Protocol):
    """Who wants to know how long clients wait, in seconds."""

    def first_token(self, seconds: float, /) -> None: ...

    def gap(self, seconds: float, /) -> None: ...


def _nameless(finish: str) -> Exception:
    """Why an answer ended without one, where the engine named no error. Made anew each time: an exception keeps the
    frames of every place that it was raised in."""
    if finish == "abort":
        return ClosedError("the engine has ended this request")
    return DeviceError("the logits of this request are not finite")


class Choice:
    """One of the answers. Its last token carries the text that was held back until the end was known."""

    def __init__(self, job: Job, index: int, begin: Callable[[Receiver], Answer], calls: CallReader | None) -> None:
        self.job, self.index, self._calls = job, index, calls
        self.answer = begin(self.receive)
        self.finish = ""  # how it ended, once it has
        self.told, self._told_at = False, 0.0  # whether there was a token, and when the last came
        self._last: Piece | None = None  # the newest

    def receive(self, item: Sampled | None) -> None:
        """What the engine gave. Never raises: others' parts of the same step come after this one's."""
        if self.finish or self.job.closed:
            return
        try:
            self._take(item)
        except Exception as error:
            self.finish = "error"
            self.job.fail(error)

    def _take(self, item: Sampled | None) -> None:
        piece = Piece(self.index, item)
        text = self.answer.take(item)
        if item is not None:
            self._measure(self.answer.last_token)
        if text:
            for part in self.answer.splitter.push(text):
                self._append(piece, *part)
        if item is not None:
            self._last = piece
            self.job.put(piece)
        if self.answer.ended:
            self._end(piece)

    def _measure(self, now: float) -> None:
        if self.told:
            self.job.meter.gap(now - self._told_at)
        else:
            self.job.meter.first_token(now - self.job.started)
        self._told_at = now
        self.told = True

    def _end(self, piece: Piece) -> None:
        if piece.sampled is None and self._last is not None and self.job.has_unread(self._last):
            self._last.text += piece.text
            self._last.reasoning += piece.reasoning
            piece = self._last
        for part in self.answer.splitter.finish():
            self._append(piece, *part)
        if self._calls is not None:
            text, piece.calls = self._calls.finish()
            piece.text += text
        end = piece if piece.sampled is None else Piece(self.index, None)
        self.finish = end.finish = self.answer.finish_reason
        if self.finish in ("error", "abort"):
            self.job.fail(self.answer.handle.error or _nameless(self.finish))
            return
        if piece.calls and self.finish == "stop" and not (self._calls and self._calls.cut):
            end.finish = "tool_calls"
        self.job.put(end)

    def _append(self, piece: Piece, text: str, reasoning: bool) -> None:
        if reasoning:
            piece.reasoning += text
        else:
            piece.text += text if self._calls is None else self._calls.push(text)


class Job:
    """next() gives the pieces that came since the last time, or raises the error that ended it. close() ends it early.

    The choices of prompt p are numbered from p * n on, and the first of each equals what n = 1 gives."""

    def __init__(
        self,
        llm: LLM,
        meter: Meter,
        started: float,
        prompts: Sequence[Request],
        params: SamplingParams,
        n: int,
        salt: bytes,
        client: str,
        reader: Callable[[Sequence[Format]], CallReader] | None = None,
    ) -> None:
        """reader: what finds the calls in an answer, where functions may be called."""
        self.meter = meter
        self.prompts = prompts
        self.client = client
        self.started = started  # by perf_counter(): when the request came
        self.error: Exception | None = None
        self.closed = False
        self._pieces: list[Piece] = []
        self._unread = 0  # bytes that came while the reader was sending
        self._reader: asyncio.Future[None] | None = None  # while one waits
        self._some_end = self._told_end = False
        self.choices: list[Choice] = []
        try:
            for index in range(len(prompts) * n):
                begin = partial(llm.answer, prompts[index // n], params, salt=salt, client=client)
                calls = reader(prompts[index // n].formats) if reader else None
                self.choices.append(Choice(self, index, partial(begin, choice=index % n), calls))
        except BaseException:
            self._abort()
            raise

    def put(self, piece: Piece) -> None:
        if self._reader is None:  # it waits for the client to take what it has sent
            self._unread += weight(piece.sampled)
            if self._unread > MOST_UNREAD:
                self.fail(UnreadAnswer())
                self._pieces.clear()
                return
        self._pieces.append(piece)
        if piece.finish:
            self._some_end = True
        self._wake()

    def has_unread(self, piece: Piece) -> bool:
        return any(own is piece for own in self._pieces)

    def fail(self, error: Exception) -> None:
        self.error = self.error or error
        self._abort()
        self._wake()

    def close(self) -> None:
        """The client has left: nothing more is computed, and the reader gets no more."""
        self.closed = True
        self._abort()
        self._wake()

    @property
    def end(self) -> str:
        """How it ended, in a word."""
        if self.error is not None:
            return "failed"
        return "done" if self.ended else "left"

    @property
    def ended(self) -> bool:
        return all(choice.finish for choice in self.choices)

    async def next(self) -> list[Piece]:
        """What came since the last time, waiting until there is something; nothing after the end."""
        while not (self._pieces or self.error or self.closed or self._told_end):
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
            self._reader = None
        if self.error is not None:
            raise self.error
        if self.closed:
            return []
        pieces, self._pieces, self._unread = self._pieces, [], 0
        self._told_end = self._some_end and self.ended
        return pieces

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _abort(self) -> None:
        for choice in self.choices:
            choice.answer.close()
