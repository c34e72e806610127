"""What a client is told when its request cannot be served: OpenAI's error object, with a status.

Only what concerns the request is told. Of anything else, such as a failing device, the client learns that it happened;
the log has the rest (Service.problem writes it)."""

from __future__ import annotations

from localllm.errors import (
    ChildError,
    ClosedError,
    DeviceError,
    FormError,
    InvalidArgument,
    LocalLLMError,
    MemoryLimitError,
    TemplateError,
)
from localllm.server import wire
from localllm.server.job import UnreadAnswer


class Problem(Exception):  # noqa: N818 - it is told, and most are no errors of ours
    """Ends the handling of a request. param is the field that is wrong, code a word that programs can compare."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    @property
    def kind(self) -> str:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    @property
    def object(self) -> wire.Failed:
        return wire.Failed(wire.Error(self.message, self.kind, self.param, self.code))

    @property
    def body(self) -> bytes:
        return wire.encode(self.object)


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> Problem:
    return Problem(400, message, param=param, code=code)


_TOLD: dict[type[Exception], tuple[int, str, str]] = {
    UnreadAnswer: (408, "the client does not take its answer", "unread_answer"),
    ClosedError: (503, "the server is shutting down", "shutting_down"),
    DeviceError: (503, "the computation failed; the server's log says why", "device_error"),
    ChildError: (503, "a process that this request needs does not work; the server's log says why", "child_failed"),
    MemoryLimitError: (503, "there is not enough memory for this request", "out_of_memory"),
}


def as_problem(error: Exception, param: str | None = None) -> Problem:
    """What a client is told of any error. `param` is the field that a refusal is about."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidArgument | TemplateError):
        return invalid(str(error), param)
    if isinstance(error, FormError):
        return Problem(400, str(error), code="form_dead_end")
    if isinstance(error, DeviceError) and error.__cause__ is None:  # the engine's own sentence
        return Problem(503, str(error), code="device_error")
    for kind, (status, message, code) in _TOLD.items():
        if isinstance(error, kind):
            return Problem(status, message, code=code)
    if isinstance(error, LocalLLMError) and error.http_status < 500:
        return Problem(error.http_status, str(error), param=param)
    return Problem(500, "the server failed to handle this request; its log says why", code="internal_error")
