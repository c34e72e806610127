"""One answer while it is made: tokens come from the engine, text goes to whoever iterates."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from localllm.engine.engine import Handle
from localllm.engine.sequence import Sampled
from localllm.errors import InvalidArgument, LocalLLMError
from localllm.messages import Completion, FinishReason, TokenLogprob
from localllm.text.reasoning import Splitter
from localllm.text.stream import TextStream


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from asking to the first token, and from that to the last; None while there is no token."""

    first_token: float | None = None
    rest: float | None = None


class Answer:
    """What is known of an answer so far. Belongs to one thread, or one event loop, at a time."""

    def __init__(self, handle: Handle, text: TextStream, splitter: Splitter, owner: object) -> None:
        """owner is what must live as long as the answer."""
        self.splitter = splitter  # tells reasoning from the answer, for those who feed it the pieces
        self.handle, self._stream, self._owner = handle, text, owner
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] | None = None if handle.seq.params.logprobs is None else []
        self._reason: FinishReason | None = None
        self._started = time.perf_counter()
        self._first = self._last = self._started

    def close(self) -> None:
        """Ends the answer early, unless it has ended: it is an "abort" then."""
        if self._reason is None:
            self.handle.abort()
            self._end("abort")

    def __del__(self) -> None:
        """An answer that nobody will read need not be made: leaving a loop over it is enough."""
        with suppress(LocalLLMError):  # as in a forked child, where there is nothing to end
            self.close()

    @property
    def completion(self) -> Completion:
        return Completion(
            text="".join(self._text),
            token_ids=list(self._tokens),
            token_logprobs=None if self._logprobs is None else list(self._logprobs),
            finish_reason=self.finish_reason,
            prompt_tokens=self.handle.prompt_tokens,
            cached_tokens=self.handle.cached_tokens,
            seed=self.handle.seq.seed,
        )

    @property
    def ended(self) -> bool:
        return self._reason is not None

    @property
    def finish_reason(self) -> FinishReason:
        return self._reason or "abort"

    @property
    def generated(self) -> int:
        """Tokens so far."""
        return len(self._tokens)

    @property
    def last_token(self) -> float:
        """When the newest came, by time.perf_counter()."""
        return self._last

    @property
    def timing(self) -> Timing:
        return Timing(self._first - self._started, self._last - self._first) if self._tokens else Timing()

    def take(self, sampled: Sampled | None) -> str:
        """The text that one more token, or the end of them, makes certain."""
        if sampled is None:
            return self._end(self.handle.finish_reason or "abort")
        self._last = time.perf_counter()
        if not self._tokens:
            self._first = self._last
        self._tokens.append(sampled.token)
        if self._logprobs is not None and sampled.logprob is not None:
            self._logprobs.append(TokenLogprob(sampled.token, sampled.logprob, sampled.top))
        piece = self._stream.push(sampled.token)
        self._text.append(piece)
        if self._stream.stopped:
            self.handle.abort()
            self._end("stop")
        return piece

    def _end(self, reason: FinishReason) -> str:
        self._reason = reason
        self._text.append(self._stream.finish())
        return self._text[-1]


class Stream(Answer, Iterator[str]):
    """Iterate for text. It comes in pieces that are whole characters and hold nothing of a stop string.

    `completion` is what is known by now; leaving a `with` block closes."""

    def __next__(self) -> str:
        """Raises what went wrong in the engine."""
        while not self.ended:
            if piece := self.take(next(self.handle, None)):
                return piece
        raise StopIteration

    def read(self) -> Completion:
        """Waits for the end."""
        for _ in self:
            pass
        return self.completion

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncStream(AsyncIterator[str]):
    """The same for `async for`. The answer is begun when it is first asked for, in the event loop that asks."""

    def __init__(self, begin: Callable[[], Awaitable[Answer]]) -> None:
        self._begin = begin
        self._answer: Answer | None = None

    async def __anext__(self) -> str:
        if self._answer is None:
            self._answer = await self._begin()
        while not self._answer.ended:
            if piece := self._answer.take(await anext(self._answer.handle, None)):
                return piece
        raise StopAsyncIteration

    async def read(self) -> Completion:
        """Waits for the end; a task that is cancelled meanwhile ends the answer too."""
        try:
            async for _ in self:
                pass
        finally:
            self.close()
        return self.completion

    @property
    def completion(self) -> Completion:
        """What is known by now. InvalidArgument before the first piece was asked for."""
        if self._answer is None:
            raise InvalidArgument("this answer has not begun: iterate over it first")
        return self._answer.completion

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
