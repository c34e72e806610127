"""Chat templates: messages -> the prompt that a model was trained on.

    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    prompt = template.render([{"role": "user", "content": "Hello"}])

A template is code that comes with a model, so it runs in a sandbox in a child process (template_child.py), never here.
One child serves all templates of this process. It is started by the first render, or earlier by prestart(); when a
template breaks a limit it is killed, and the next render starts another. Where the child is at fault, not the template,
as when somebody stops or kills it, the error is RendererError.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from localllm.errors import InvalidArgument, RendererError, TemplateError

MAX_SOURCE = 1 << 20
MAX_REQUEST = 64 << 20
START_SECONDS = 30.0
RENDER_SECONDS = 2.0  # by the wall clock; processor time is bounded by the child itself
STARVED_SECONDS = 1.0  # of processor time, more than any honest template needs: before that, a late child is starved
PATIENCE_SECONDS = 10.0  # by the wall clock, for a starved child
KEY = "tokenizer.chat_template"

_STRFTIME = re.compile(r"""strftime_now\(\s*(?:"([^"]*)"|'([^']*)')""")


class ChatTemplate:
    """Thread-safe. source: the template in jinja2's language, at most 1 MiB."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are allowed")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], bos_token: str = "", eos_token: str = "") -> ChatTemplate:
        """The template that a GGUF file carries. Raises TemplateError where it carries none."""
        source = metadata.get(KEY)
        if not isinstance(source, str) or not source.strip():
            raise TemplateError(
                f"this model has no chat template (key {KEY}): give one with --chat-template FILE, or use --raw "
                "to send the prompt as it is"
            )
        return cls(source, bos_token, eos_token)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation. Raises TemplateError with the template's own sentence or the limit it broke.

        variables are the template's own, such as enable_thinking, and values that JSON can hold. Two are not: `now`, a
        datetime, and `strftime_now`, a function of a date format, set the date that a template writes (default: today).
        """
        now = variables.pop("now") if isinstance(variables.get("now"), datetime) else datetime.now()
        dates = self._dates(variables.pop("strftime_now")) if callable(variables.get("strftime_now")) else {}
        values = {
            **self._tokens, "documents": None, **variables,
            "messages": list(messages), "tools": list(tools) if tools is not None else None,
            "add_generation_prompt": add_generation_prompt,
        }  # fmt: skip
        request = {"source": self.source, "variables": values, "now": now.isoformat(), "dates": dates}
        try:
            body = json.dumps(request).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"messages, tools and variables must be values that JSON can hold: {error}") from None
        if len(body) > MAX_REQUEST:
            raise InvalidArgument(f"messages: {len(body)} bytes as JSON; at most {MAX_REQUEST} are allowed")
        return _CHILD.render(body)

    def _dates(self, strftime: Callable[[str], str]) -> dict[str, str]:
        formats = {double or single for double, single in _STRFTIME.findall(self.source)}
        return {layout: strftime(layout) for layout in formats}


def prestart() -> None:
    """Start the child process now, without waiting for it, so that the first render need not."""
    _CHILD.prestart()


class _Child:
    """The process and the pipes to it. Everything under one lock: a child renders one template at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it: after a fork, a child of the fork starts its own
        self._ready = False

    def prestart(self) -> None:
        with self._lock, suppress(RendererError):  # the first render tells what is wrong
            self._start()

    def render(self, body: bytes) -> str:
        with self._lock:
            try:
                process = self._start()
                if not self._ready:
                    self._exchange(process, b"", START_SECONDS, START_SECONDS)
                    self._ready = True
                message = len(body).to_bytes(4, "big") + body
                answer = self._exchange(process, message, RENDER_SECONDS, PATIENCE_SECONDS)
            except BaseException:  # also KeyboardInterrupt: an answer left in the pipe would be the next one's
                self._stop()
                raise
        if "error" in answer:
            raise TemplateError(answer["error"])
        return str(answer["text"])

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        if self._owner == os.getpid():
            self._stop()
        program = Path(__file__).with_name("template_child.py")
        try:
            self._process = subprocess.Popen(
                [sys.executable or "python3", "-I", "-S", str(program), *_library_folders()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise RendererError(f"the process that renders chat templates cannot be started: {error}") from None
        if self._owner != os.getpid():
            atexit.register(self._stop)
        self._owner, self._ready = os.getpid(), False
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _exchange(self, process: subprocess.Popen[bytes], message: bytes, seconds: float, patience: float) -> Any:
        """Its answer to a message, within so many seconds; where it had little processor time, with more patience."""
        assert process.stdin is not None and process.stdout is not None
        begun, start = _processor_seconds(process.pid), time.monotonic()
        left, data, poller = memoryview(message), bytearray(), select.poll()
        poller.register(process.stdout, select.POLLIN)
        if left:
            poller.register(process.stdin, select.POLLOUT)
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            passed = time.monotonic() - start
            ready = dict(poller.poll(max(0.05, seconds - passed) * 1000))
            if ready.get(process.stdin.fileno()):
                left = _written(process.stdin.fileno(), left)
                if not left:
                    poller.unregister(process.stdin)
            if ready.get(process.stdout.fileno()):
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise _ended(process.wait())
                data += chunk
            if passed > seconds:
                _check_patience(_processor_seconds(process.pid) >= begun + STARVED_SECONDS, passed > patience)
        return json.loads(data[4:])


def _written(pipe: int, data: memoryview) -> memoryview:
    """What is left of it after a write that does not wait; nothing where the reader is gone, as its end will tell."""
    try:
        return data[os.write(pipe, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[len(data) :]


def _check_patience(used_much: bool, over: bool) -> None:
    """Raises what is wrong with a child that is late."""
    if over:
        raise RendererError("the process that renders chat templates does not answer")
    if used_much:
        raise TemplateError(f"the chat template took more than {RENDER_SECONDS} s")


def _processor_seconds(process: int) -> float:
    """The processor time that a process has used; without end on a system that does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ended(code: int) -> TemplateError | RendererError:
    """Why there is no answer from a child that has ended."""
    if code == -signal.SIGPROF:
        return TemplateError("the chat template took more than 2 s of processor time")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code in (-signal.SIGKILL, -signal.SIGTERM):  # no template can do this
        return RendererError(f"the process that renders chat templates was ended by somebody ({how})")
    return TemplateError(f"the chat template ended its process ({how})")


def _library_folders() -> list[str]:
    """Where jinja2 and markupsafe are installed: the child looks nowhere else."""
    folders = []
    for name in ("jinja2", "markupsafe"):
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise RendererError(f"chat templates need the Python package {name}, which is not installed")
        folders.append(str(Path(found.submodule_search_locations[0]).resolve().parent))
    return list(dict.fromkeys(folders))


_CHILD = _Child()
