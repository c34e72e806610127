"""Reasoning apart from the answer, in text that comes bit by bit.

Models that reason write it first, between two marks: <think> ... </think> and the like. Which marks, the chat template
tells; some templates end the prompt with the first one, so that the model begins inside.
"""

from typing import NamedTuple, Protocol


class Marks(NamedTuple):
    open: str
    close: str


FAMILIES = (
    Marks("<think>", "</think>"),  # DeepSeek R1, Qwen 3, SmolLM 3, GLM, ...
    Marks("[THINK]", "[/THINK]"),  # Mistral
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<mm:think>", "</mm:think>"),  # MiniMax
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
)

HARMONY = Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")  # gpt-oss, read by channels.py

# Texts of single tokens that must stay visible for the marks to be found.
MARKERS = frozenset(mark for family in FAMILIES for mark in family) | {"<|channel>"}


class Piece(NamedTuple):
    text: str
    reasoning: bool


def marks_of(template: str) -> Marks | None:
    """The marks that a chat template speaks of; None for a model that does not reason."""
    if HARMONY.close in template:
        return HARMONY
    return next((marks for marks in FAMILIES if marks.close in template), None)


def answer_mark(marks: Marks | None, prompt: str) -> str:
    """What a model whose prompt ends inside its reasoning writes before its answer; empty for any other."""
    return marks.close if marks is not None and prompt.rstrip().endswith(marks.open) else ""


class Splitter(Protocol):
    """Tells reasoning from the answer: see ReasoningSplitter."""

    def push(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]: ...


class ReasoningSplitter:
    """Feed text to push() and finish(); each returns pieces, told apart. Not thread-safe.

    Reasoning stands at the beginning or not at all: a mark that is written later is text like any other. prompt: what
    the model continues; if it ends with the opening mark, reasoning has begun. White space around reasoning is dropped.
    """

    def __init__(self, marks: Marks | None, prompt: str = "") -> None:
        self._marks = marks
        self._held = ""
        if marks is None:
            self._state = "answer"
        else:
            self._state = "reasoning" if prompt.rstrip().endswith(marks.open) else "start"
        self._fresh = self._state == "reasoning"  # white space is dropped until text comes

    def push(self, text: str) -> list[Piece]:
        """The pieces that are certain now."""
        if self._state == "answer" and not (self._fresh or self._held):
            return [Piece(text, False)] if text else []
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back because it might have been a mark."""
        held, self._held = self._held, ""
        return self._piece(held)

    def _step(self, pieces: list[Piece]) -> bool:
        """Move on by one state where the held text allows it."""
        if self._marks is None or self._state == "answer":
            pieces += self._piece(self._take(len(self._held)))
            return False
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(self._marks.open):
                self._take(self._held.index(self._marks.open) + len(self._marks.open))
                self._state, self._fresh = "reasoning", True
                return True
            if self._marks.open.startswith(begun):
                return False
            self._state = "answer"
            return True
        at = self._held.find(self._marks.close)
        if at < 0:
            pieces += self._piece(self._take(len(self._held) - _waiting(self._held, self._marks.close)))
            return False
        pieces += self._piece(self._take(at).rstrip())
        self._take(len(self._marks.close))
        self._state, self._fresh = "answer", True
        return True

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _piece(self, text: str) -> list[Piece]:
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        return [Piece(text, self._state == "reasoning")] if text else []


def _waiting(text: str, close: str) -> int:
    """How much of the end of the text may be white space before a closing mark, and the beginning of the mark."""
    begun = next((n for n in range(min(len(text), len(close) - 1), 0, -1) if text.endswith(close[:n])), 0)
    body = text[: len(text) - begun]
    return begun + len(body) - len(body.rstrip())
