"""Threads for what may take a while, a lane for each kind of work, so that streams go on and no kind waits for another.

In a lane clients take turns, and work whose client has left before its turn is never begun. The threads are daemons: a
process that ends does not wait for what they are at."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
_Task = tuple[Future[Any], Callable[[], Any]]


class Lane:
    def __init__(self, name: str, threads: int = 1) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[_Task]] = {}  # by client; the first one's turn is next
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"localllm-{name}-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, client: str, work: Callable[..., T], *arguments: Any) -> T:
        """What the work gives. Cancelled before its turn, it is skipped; later, its result is."""
        future: Future[T] = Future()
        with self._changed:
            self._waiting.setdefault(client, deque()).append((future, partial(work, *arguments)))
            self._changed.notify()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """What waits is still done, and then the threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            self._do(*task)
            del task  # an idle thread keeps nothing of its last work

    def _next(self) -> _Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            client, tasks = next(iter(self._waiting.items()))
            del self._waiting[client]
            task = tasks.popleft()
            if tasks:
                self._waiting[client] = tasks  # behind all others
            return task

    def _do(self, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)


class Lanes:
    """The kinds there are."""

    def __init__(self) -> None:
        self.bodies = Lane("bodies")  # reading large bodies
        self.prompts = Lane("prompts", 2)  # encoding prompts
        self.forms = Lane("forms")  # compiling what answers are held to: one process tries them, one at a time
        self.chats = Lane("chats")  # rendering conversations: one process renders, one at a time
        self.tokenize = Lane("tokenize")  # texts that are no prompts, which no context bounds
        self.replies = Lane("replies")  # encoding large replies

    def close(self) -> None:
        for lane in (self.bodies, self.prompts, self.forms, self.chats, self.tokenize, self.replies):
            lane.close()
