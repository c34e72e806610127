"""What all requests share: the model under its names, and how much may be going on at once."""

from __future__ import annotations

import logging
import os
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from msgspec import UNSET, UnsetType

from localllm.errors import ClosedError, DeviceError, FileError, UnsupportedError
from localllm.server.body import Room
from localllm.server.job import Job
from localllm.server.lanes import Lanes
from localllm.server.metrics import Metrics
from localllm.server.problems import Problem, as_problem, invalid
from localllm.server.turnover import Turnover

if TYPE_CHECKING:
    from localllm.config import ServeOptions
    from localllm.llm import LLM

_log = logging.getLogger(__name__)
ANSWERS = ("/v1/chat/completions", "/v1/completions")  # the paths that lead to one


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GoingOn(Protocol):
    """What is done for a request, and can be ended."""

    def fail(self, error: Exception, /) -> None: ...


class Service:
    def __init__(self, llm: LLM, options: ServeOptions) -> None:
        self.llm, self.options = llm, options
        llm.get_ready()
        self.created = int(time.time())
        file = _shown(os.path.basename(llm.path))
        self.model_name = _shown(llm.name)
        self.model_id = file.removesuffix(".gguf")
        self._names = {"default", file, self.model_id}
        self.longest_token = _longest_token(llm)  # in bytes
        self.file_changed = False
        self.on_loopback = is_loopback(options.host)
        self.metrics = Metrics(llm)
        self.drained_from: float | None = None  # perf_counter() when the server was told to end
        self.failures = 0  # requests that failed for a reason of ours
        self.last_failure: str | None = None
        self._said = (0, "")  # of the last failure: the step, and what the log has of it
        self.jobs: set[Job] = set()  # that clients wait for
        self.turnover = Turnover()
        self.preparations: set[GoingOn] = set()  # requests whose answers have not begun
        self.lanes = Lanes()
        self.room = Room()

    def close(self) -> None:
        self.lanes.close()

    @property
    def draining(self) -> bool:
        return self.drained_from is not None

    @property
    def status(self) -> str:
        if self.llm.failure is not None:
            return "failed"
        if self.file_changed:
            return "model_file_changed"
        return "draining" if self.draining else "ok"

    @property
    def open_choices(self) -> int:
        return sum(len(job.choices) for job in self.jobs)

    def begun(self, job: Job) -> None:
        """A client waits for it."""
        if not self.jobs:
            self.turnover.begin()
        self.jobs.add(job)

    def done(self, job: Job) -> None:
        """A client waits for it no more."""
        self.jobs.discard(job)
        self.turnover.ended(len(job.choices))
        self.metrics.request(job.end, sum(len(prompt.tokens) for prompt in job.prompts))

    def refused(self, path: str, end: str = "refused") -> None:
        """Counts a request for an answer that has ended before the answer began."""
        if path in ANSWERS:
            self.metrics.request(end)

    def problem(self, error: Exception) -> Problem:
        """What the client of a failed job is told."""
        if isinstance(error, FileError):  # from a step: no other file is read for a request
            self._lose_file(error)
            error = self._changed()
        if self.llm.failure is not None and isinstance(error, ClosedError | DeviceError):
            error = self._engine_failed()
        problem = as_problem(error)
        if problem.status >= 500 and not self.draining:
            self.failures += 1
            self.last_failure = problem.code
            if problem is not error:
                self._log(error, problem)
        return problem

    def _log(self, error: Exception, problem: Problem) -> None:
        """Says why a request failed; once for all that a step of the engine has failed."""
        cause = error.__cause__ or error
        said = (self.llm.stats.steps, f"{type(cause).__name__}: {cause}")
        if not isinstance(error, DeviceError) or said != self._said:
            details = cause if problem.status == 500 else None  # of a defect
            _log.error("a request failed (%s): %s", problem.code, said[1], exc_info=details)
        self._said = said

    def end_all(self, error: Exception | None = None) -> None:
        """Requests that are still going on end with an error."""
        going_on: list[GoingOn] = [*self.preparations, *self.jobs]
        for request in going_on:
            request.fail(error or ClosedError("the server is shutting down"))

    def check_file(self) -> None:
        """A file that was written to since it was mapped is another model, or none."""
        try:
            self.llm.check_file()
        except FileError as error:
            self._lose_file(error)

    def _lose_file(self, error: FileError) -> None:
        if not self.file_changed:
            self.file_changed = True
            _log.error("%s", error)
            self.end_all(self._changed())

    def _changed(self) -> Problem:
        return Problem(503, "the model's file was changed; the server must be started again", code="model_file_changed")

    def _engine_failed(self) -> Problem:
        return Problem(503, "the engine has stopped; the server's log says why", code="engine_failed")

    def check_model(self, name: str | UnsetType) -> None:
        if name is not UNSET and name not in self._names:
            raise Problem(
                404,
                f"there is no model {name[:200]!r} here; this server has {self.model_id!r}",
                param="model",
                code="model_not_found",
            )

    def token_bytes(self, token: int) -> bytes:
        """A model may know more tokens than its vocabulary names."""
        tokenizer = self.llm.tokenizer
        return tokenizer.token_bytes(token) if token < tokenizer.n_vocab else b""

    def admit(self, choices: int, begun: float, param: str) -> None:
        """Problem 429 where more are waiting than the queue holds. begun: perf_counter() when the request had come:
        before the server was told to end, it is still answered. param: the field that asks for so many."""
        if self.llm.failure is not None:
            raise self._engine_failed()
        if self.drained_from is not None and begun > self.drained_from:
            raise Problem(503, "the server is shutting down", code="shutting_down", headers={"retry-after": "5"})
        if self.file_changed:
            raise self._changed()
        most = self.options.max_batch + self.options.max_queue
        if choices > most:
            raise invalid(f"{choices} answers are more than the {most} that may be made or waited for", param)
        if (lacking := self.open_choices + choices - most) > 0:
            raise Problem(
                429,
                f"{self.open_choices} answers are being made or waited for, and at most {most} may be",
                code="queue_full",
                headers={"retry-after": str(self.turnover.seconds(lacking))},
            )


def _shown(name: str) -> str:
    """Bytes of a name that are no UTF-8 as question marks: JSON cannot hold them."""
    return name.encode("utf-8", "replace").decode()


def _longest_token(llm: LLM) -> int:
    try:
        tokenizer = llm.tokenizer
    except UnsupportedError:
        return 1  # no text can be encoded anyway
    return max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.n_vocab))
