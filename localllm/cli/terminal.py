"""Text on its way to a person. A model's words and a file's metadata must not drive the terminal that shows them."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from localllm.errors import LocalLLMError


class _Visible(dict[int, str]):
    """For str.translate: control characters become \\u{..}, save line ends and tabs; carriage returns vanish.

    Control characters are C0, DEL and C1 (ECMA-48), those that reorder a line (Unicode UAX 9), and the separators and
    invisible marks that terminals disagree about. Each stands for itself, so text may come in pieces of any size.
    """

    def __missing__(self, code: int) -> str:
        control = code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000
        control = control or code in (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF)
        control = control or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or 0xE0000 <= code <= 0xE007F
        self[code] = f"\\u{{{code:x}}}" if control else chr(code)
        return self[code]


_VISIBLE = {ord("\n"): "\n", ord("\t"): "\t", ord("\r"): ""}


def printable(text: str) -> str:
    """The text with everything that a terminal might obey made visible."""
    return text.translate(_Visible(_VISIBLE))


class Printer:
    """Writes an answer as it comes. On a terminal its text is made printable, and thoughts are dimmed; into a file or
    a pipe it goes as it is."""

    def __init__(self, stream: TextIO | None = None) -> None:
        if stream is None and sys.stdout is None:
            raise LocalLLMError("standard output is closed, so there is nowhere to write the answer")
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._colours = self._terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._last = "\n"
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows a question mark

    def write(self, text: str, dim: bool = False) -> None:
        if not text:
            return
        self._last = text[-1]
        if self._terminal:
            text = printable(text)
        self._stream.write(f"\x1b[2m{text}\x1b[22m" if dim and self._colours else text)
        self._stream.flush()

    def end_line(self) -> None:
        """Starts a new line unless one has just been started."""
        if self._last != "\n":
            self.write("\n")
