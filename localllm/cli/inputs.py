"""What a command is given to read: arguments, files, and whatever is piped into it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from localllm.errors import FileError


def read_text(name: str) -> str:
    """The text of a file; of standard input where the name is a dash. FileError also for what is not UTF-8."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        source = "standard input" if name == "-" else name
        raise FileError(f"{source} is not text: its byte {error.start} is not UTF-8") from error


def at_terminal() -> bool:
    """Whether a person types and reads here. A closed stream is None."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def piped_text() -> str | None:
    """All that is piped or redirected into the program, or None when nothing is: a terminal is not read here."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # there is no standard input
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return None
    return read_text("-") or None
