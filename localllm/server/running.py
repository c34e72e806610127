"""The server's life: it listens, serves, and on a signal finishes what it has begun before it ends.

SIGTERM and the first Ctrl-C drain: no connection is accepted any more, and requests that have come are answered, for at
most `grace` seconds; then, or at a second signal, they end with an error, and what is not sent LAST_SECONDS later is
cut off."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from localllm.errors import LocalLLMError
from localllm.server.access_log import Lines
from localllm.server.app import make_app
from localllm.server.protocol import protocol_class
from localllm.server.service import Service

LAST_SECONDS = 1.0
INTERRUPTED = 130


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; LocalLLMError says why there can be none."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise LocalLLMError(f"cannot listen on {host} port {port}: {error.strerror}") from error


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _standard_output() -> int:
    if sys.stdout is None:
        raise LocalLLMError("--access-log needs the standard output, which is closed")
    return sys.stdout.fileno()


class Running(uvicorn.Server):
    """run() returns the exit code. on_drain is told how many answers are still being made."""

    def __init__(self, service: Service, on_drain: Callable[[int], None] = lambda count: None) -> None:
        self._service, self._on_drain = service, on_drain
        self.signals: list[int] = []
        self._at_once = asyncio.Event()
        self._lines = Lines(_standard_output()) if service.options.access_log else None
        config = uvicorn.Config(
            make_app(service, self._lines),
            http=protocol_class(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=1 << 20,  # more than comes at once: see protocol.MOST_HEAD
        )
        super().__init__(config)

    def serve_on(self, sock: socket.socket) -> int:
        self.run(sockets=[sock])
        return INTERRUPTED if signal.SIGINT in self.signals else 0

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            self._service.check_file()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drained_from = time.perf_counter()
        self._on_drain(self._service.open_choices)
        end = asyncio.create_task(self._end_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()
            self._service.close()
            if self._lines is not None:
                self._lines.close()

    async def _end_in_time(self) -> None:
        """Ends what is left when the grace is over, or at a second signal."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._at_once.wait(), self._service.options.grace)
        self._service.end_all()
        await asyncio.sleep(LAST_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        self.force_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._at_once.set()
        self.signals.append(sig)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but without dying of the signal after all is done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
