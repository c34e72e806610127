"""Tokens -> text that is safe to show as it comes: whole characters only, and nothing of a stop string.

A token is a few bytes, which may end inside a character; a stop string may lie across tokens. So up to three bytes wait
for the rest of their character, and text that may be the beginning of a stop string waits until it is not.
"""

import codecs
from collections.abc import Callable, Sequence
from functools import lru_cache

from localllm.errors import InvalidArgument


class TextStream:
    """Feed tokens to push() and show what it returns; after the last, show finish(). Not thread-safe.

    token_bytes: the bytes of a token id. stop: the text ends where any of these is first complete, before its first
    character; of several complete at the same character the longest counts. The result does not depend on how the text
    was cut into tokens. Bytes that are no UTF-8 become U+FFFD, one for each maximal part of a character.
    skip_space: drop one space at the very beginning, which vocabularies that put a space before text (the tokenizer's
    adds_space) write before an answer that begins a new text.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stop: Sequence[str] = (), skip_space: bool = False) -> None:
        if not all(stop):
            raise InvalidArgument("stop: a stop string is empty")
        self.stopped = False
        self._token_bytes = token_bytes
        self._stop = [_Stop(text) for text in stop]
        self._begins = {text[0] for text in stop}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._whole = True  # no character has only begun
        self._skip_space = skip_space

    def push(self, token: int) -> str:
        """The text that can be shown now that this token is known; empty after a stop string."""
        if self.stopped:
            return ""
        piece = self._token_bytes(token)
        if self._skip_space and piece:
            piece, self._skip_space = piece.removeprefix(b" "), False
        if self._whole and piece.isascii():  # as nearly all are, at a third of the time
            return self._advance(piece.decode("ascii"))
        text = self._decoder.decode(piece)
        self._whole = not self._decoder.getstate()[0]
        return self._advance(text)

    def finish(self) -> str:
        """The text that was still held back, an incomplete character as U+FFFD."""
        if self.stopped:
            return ""
        text = self._advance(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _advance(self, text: str) -> str:
        if not self._stop or (not self._held and self._begins.isdisjoint(text)):
            return text
        shown = self._held + text
        for at, char in enumerate(text, len(self._held) + 1):
            if complete := max(stop.reads(char) for stop in self._stop):
                self.stopped, self._held = True, ""
                return shown[: at - complete]
        keep = max(stop.matched for stop in self._stop)
        self._held = shown[len(shown) - keep :]
        return shown[: len(shown) - keep]


class _Stop:
    """How much of a stop string the text ends with (Knuth, Morris and Pratt 1977: each character costs the same)."""

    def __init__(self, text: str) -> None:
        self._text, self._shorter = text, _borders(text)
        self.matched = 0

    def reads(self, char: str) -> int:
        """The length of the stop string if it is complete with this character, else 0."""
        matched = self.matched
        while matched and self._text[matched] != char:
            matched = self._shorter[matched - 1]
        self.matched = matched = matched + (self._text[matched] == char)
        return matched if matched == len(self._text) else 0


@lru_cache(maxsize=64)  # of each choice of a request they are the same
def _borders(text: str) -> tuple[int, ...]:
    """For each beginning of the text, the length of the longest shorter one that it ends with."""
    borders = [0] * len(text)
    for end in range(1, len(text)):
        size = borders[end - 1]
        while size and text[size] != text[end]:
            size = borders[size - 1]
        borders[end] = size + (text[size] == text[end])
    return tuple(borders)
