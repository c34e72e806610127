"""The child's side of child.py: messages on standard input and output, under bounds on memory and processor time. It
may open no file or socket and start no process. Imports the standard library, nothing else.

A message is JSON after a length of four bytes, big-endian. First comes {"ready": true}; then each request is answered.
The end of the input ends it.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CPU_SECONDS = 2
EXTRA_MEMORY = 256 << 20


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers requests to the end of the input. All that is imported must have been, before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_for_good()
    _write({"ready": True})
    while len(head := sys.stdin.buffer.read(4)) == 4:
        _allow_seconds()
        request = json.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
        _write(answer(request))


def _limit_for_good() -> None:
    """Bounds that hold as long as this process lives. Memory is bounded where the system tells how much is used."""
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 3, resource.RLIMIT_NPROC: 0}
    with suppress(FileNotFoundError), open("/proc/self/statm") as statm:
        bounds[resource.RLIMIT_AS] = int(statm.read().split()[0]) * resource.getpagesize() + EXTRA_MEMORY
    for what, amount in bounds.items():
        resource.setrlimit(what, (amount, amount))


def _allow_seconds() -> None:
    """The system kills this process when it has used so much more processor time from now on.

    A timer, not RLIMIT_CPU raised to the time used plus this: Linux checks that limit against a count of clock ticks,
    which drifts away from the time that it reports as used, and after some thousand requests kills honest ones.
    """
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)


def _write(answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()
