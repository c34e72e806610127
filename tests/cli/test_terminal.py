"""Text for terminals: nothing a model writes may drive one, and nothing is changed on its way into a file."""

from __future__ import annotations

import io
import random
import unicodedata

import pytest

from localllm.cli.terminal import Printer, printable

HOSTILE = (
    "\x1b]52;c;cm0gLXJm\x07", "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "\x1bc", "\x1b[2J\x1b[H", "\x9b31m",
    "\x90q", "\b\b\b", "a\rb", "\x7f", "\x00", "\u202etxt.exe", "\u2066\u2069", "\u200f", "\ufeff", "\u2028",
    "\U000e0041",
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_made_visible(text: str) -> None:
    assert not commands(printable(text))


def commands(text: str) -> list[str]:
    """Characters that are no letters, marks, numbers, punctuation, symbols or spaces."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200d"]


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Grüße, 世界! \t👩\u200d👩\u200d👧 e\u0301 \n\n```python\nprint(1)\n```"
    assert printable(text) == text
    assert printable("a\r\nb") == "a\nb"


def test_pieces_make_the_same_as_the_whole() -> None:
    rng = random.Random(5)
    for _ in range(200):
        text = "".join(rng.choice([*HOSTILE, "x", "é", "\n"]) for _ in range(6))
        cuts = sorted(rng.sample(range(len(text) + 1), 2))
        pieces = [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
        assert "".join(map(printable, pieces)) == printable(text)


def test_a_terminal_sees_dimmed_thoughts_and_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    printer = Printer(screen)
    printer.write("hm\x1b[31m", dim=True)
    printer.write("yes\x1bc")
    printer.end_line()
    assert screen.getvalue() == "\x1b[2mhm\\u{1b}[31m\x1b[22myes\\u{1b}c\n"


def test_colours_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    Printer(screen).write("hm", dim=True)
    assert screen.getvalue() == "hm"


def test_a_file_gets_the_text_itself() -> None:
    file = io.StringIO()
    printer = Printer(file)
    printer.write("a\x1b[31m\r\n", dim=True)
    printer.end_line()
    assert file.getvalue() == "a\x1b[31m\r\n"
