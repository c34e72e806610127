"""Reasoning apart from the answer in the format of gpt-oss (Harmony), in text that comes bit by bit.

An answer is a row of messages, each a head, <|message|> and a body: the head names a channel (analysis is reasoning;
final and commentary are for people) and, where a function is called, its recipient. A call is passed on as text from
its recipient on, for calls.CallReader to find. The format: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

from localllm.text.reasoning import Piece

BODY = "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
BEGINNINGS = ("<|channel|>", "<|start|>", "to=")  # of a head; what begins otherwise is an answer without any

# Texts of single tokens that must stay visible for messages to be found.
MARKS = frozenset({"<|channel|>", "<|constrain|>", BODY, "<|start|>", "<|end|>", "<|call|>"})


class ChannelSplitter:
    """As reasoning.ReasoningSplitter. Between two messages for people stands an empty line."""

    def __init__(self) -> None:
        self._held = ""
        self._in_head, self._first = True, True
        self._reasoning = False  # whether the body is
        self._told = self._gap = False  # whether people were shown a body, and whether another has begun

    def push(self, text: str) -> list[Piece]:
        """The pieces that are certain now."""
        self._held += text
        pieces: list[Piece] = []
        while self._read_head(pieces) if self._in_head else self._read_body(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back because it might have been a mark. Half of a head is nothing to show."""
        held, self._held = self._held, ""
        if self._in_head and held.lstrip().startswith(BEGINNINGS[:2]):
            return []
        return self._piece(held)

    def _read_head(self, pieces: list[Piece]) -> bool:
        begun = self._held.lstrip()
        if self._first and not any(begun.startswith(mark) or mark.startswith(begun) for mark in BEGINNINGS):
            self._in_head = self._first = False
            return True
        at = self._held.find(BODY)
        if at < 0:
            return False
        head = self._take(at + len(BODY))
        recipient = head.find("to=")
        self._in_head = self._first = False
        self._reasoning = "<|channel|>analysis" in head and recipient < 0
        self._gap = self._told and not self._reasoning
        if recipient >= 0:
            pieces += self._piece(" " + head[recipient:])
        return True

    def _read_body(self, pieces: list[Piece]) -> bool:
        found = [(at, mark) for mark in ENDS if (at := self._held.find(mark)) >= 0]
        if not found:
            keep = max(_overlap(self._held, mark) for mark in ENDS)
            pieces += self._piece(self._take(len(self._held) - keep))
            return False
        at, mark = min(found)
        pieces += self._piece(self._take(at))
        if mark != "<|start|>":  # which begins the next head
            self._take(len(mark))
        self._in_head = True
        return True

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _piece(self, text: str) -> list[Piece]:
        if not text:
            return []
        if not self._reasoning:
            text, self._gap, self._told = "\n\n" * self._gap + text, False, True
        return [Piece(text, self._reasoning)]


def _overlap(text: str, mark: str) -> int:
    """The length of the longest end of the text that begins the mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
