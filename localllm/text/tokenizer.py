"""Text to token ids and back, as the vocabulary of a GGUF file says.

    tokenizer = Tokenizer.from_gguf("model.gguf")
    ids = tokenizer.encode("Hello")
    text = tokenizer.decode(ids)

Message text may spell a special token, such as <|im_end|>. encode(..., parse_special=False) never makes it one. For a
rendered chat template, where some special tokens are the template's and some are a message's words:
encode_guarded(template.render(guard(messages), guard(tools))).
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from localllm.errors import InvalidArgument
from localllm.text import build, vocab
from localllm.text.reasoning import MARKERS

GUARD = "\ufdd0"  # a code point that Unicode keeps out of interchanged text


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones of Latin-1 as themselves, the rest from U+0100 upwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


_BYTES = _byte_alphabet()


class Tokenizer:
    """Thread-safe; encoding releases the GIL.

    n_vocab: number of tokens. bos_id, eos_id: None where the file names none. eog_ids: any of them ends a generation.
    adds_bos, adds_eos, adds_space: what encode() puts around a text, the last also after special tokens.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """metadata: the keys of a GGUF file. Raises FormatError or UnsupportedError, naming the key."""
        self._vocab = vocab.read(metadata)
        self._encoder = build.encoder(self._vocab)
        self._finder, self._found_ids = build.finder(self._vocab)
        self._spelled: dict[int, bytes] = {}  # token_bytes() of the ids that were asked for
        self.n_vocab = len(self._vocab.tokens)
        self.bos_id, self.eos_id, self.eog_ids = self._vocab.bos_id, self._vocab.eos_id, self._vocab.end_ids
        self.adds_bos, self.adds_eos = bool(self._vocab.prefix), bool(self._vocab.suffix)
        self.adds_space = self._vocab.space_prefix

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of a GGUF file, which may hold a vocabulary and no tensors."""
        from localllm.modelfile import ModelFile  # needs the native library, which the rest of this module does not

        with ModelFile(path) as file:
            return cls(file.metadata)

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """The ids of a text. add_special: with the ids that the file wants before and after it (such as bos).

        parse_special: spelled special tokens become tokens; without it they stay text, whatever the text says.
        Raises InvalidArgument for text that is not Unicode (a lone surrogate).
        """
        ids = self._encode_parsed(text, guarded=False) if parse_special else self._encode_plain([text])[0]
        return [*self._vocab.prefix, *ids, *self._vocab.suffix] if add_special else ids

    def guard(self, value: Any) -> Any:
        """A message, or any value made of dicts, lists and strings, with special tokens inert for encode_guarded().

        They are so whatever is written around the strings. (A special token of a single character cannot be guarded.)
        """
        if isinstance(value, str):
            return self._guard(value)
        if isinstance(value, Mapping):
            return {key: self.guard(item) for key, item in value.items()}
        return [self.guard(item) for item in value] if isinstance(value, (list, tuple)) else value

    def encode_guarded(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are tokens, save those that came through guard(). Adds none."""
        return self._encode_parsed(text, guarded=True)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD. special: spell special tokens instead of hiding them.

        Undoes encode(): a space that encoding put before text is taken away again.
        """
        parts = bytearray()
        at_start = self._vocab.space_prefix or self._vocab.model == "bert"
        strips = at_start
        for token_id in ids:
            piece = self.token_bytes(token_id)
            is_word = not self.is_special(token_id) and self._vocab.types[token_id] != vocab.USER_DEFINED
            if strips and is_word and piece.startswith(b" "):
                piece = piece[1:]
            if special or not self.is_special(token_id):
                parts += piece
            strips = at_start and not is_word
        return parts.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of a token; of a special one, its name. Raises InvalidArgument for an id out of range."""
        known = self._spelled.get(token_id)
        if known is None:
            known = self._spelled[token_id] = self._spell(token_id)
        return known

    def _spell(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.n_vocab:
            raise InvalidArgument(f"token id: expected 0 to {self.n_vocab - 1}, found {token_id}")
        token, kind = self._vocab.tokens[token_id], self._vocab.types[token_id]
        if kind == vocab.USER_DEFINED or token_id in self._vocab.hidden:
            return token.encode()
        if kind == vocab.BYTE:
            return bytes([vocab.byte_value(token) or 0])
        if not self._vocab.pre.byte_level:
            return token.replace(build.SPACE, " ").encode()
        try:
            return bytes([_BYTES[char] for char in token])
        except KeyError:  # not spelled in the alphabet of bytes: the text itself
            return token.encode()

    def shown_bytes(self, token_id: int, marks: frozenset[str] = frozenset()) -> bytes:
        """token_bytes() for text that people read: special tokens are hidden, save `marks` and those of reasoning."""
        piece = self.token_bytes(token_id)
        if token_id not in self._vocab.hidden or (name := piece.decode()) in MARKERS or name in marks:
            return piece
        return b""

    def is_special(self, token_id: int) -> bool:
        """Whether text can become this token only where special tokens are parsed."""
        return token_id in self._vocab.hidden

    def _guard(self, text: str) -> str:
        text = text.replace(GUARD, GUARD + GUARD)
        for start, end, _ in reversed(self._find(text)):
            if end - start > 1:
                text = f"{text[: start + 1]}{GUARD}{text[start + 1 :]}"
        return text + GUARD if self._begins_special(text) else text

    def _begins_special(self, text: str) -> bool:
        """Whether a special token would be spelled if the right words followed the text."""
        names, longest = self._special_names
        for size in range(1, min(len(text), longest) + 1):
            at = bisect_left(names, text[-size:])
            if at < len(names) and names[at].startswith(text[-size:]):
                return True
        return False

    @cached_property
    def _special_names(self) -> tuple[list[str], int]:
        names = sorted(self._vocab.tokens[i] for i in self._found_ids)
        return names, max(map(len, names), default=0)

    def _encode_parsed(self, text: str, guarded: bool) -> list[int]:
        ids: list[int] = []
        plain, specials, at = [], [], 0
        for start, end, token_id in self._find(text):
            plain.append(text[at:start])
            specials.append(token_id)
            at = end
        plain.append(text[at:])
        if guarded:
            plain = [_unguarded(piece) for piece in plain]
        for piece, special in zip(self._encode_plain(plain), [*specials, None], strict=True):
            ids += piece
            if special is not None:
                ids.append(special)
        return ids

    def _find(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, id) of the special tokens in a text, leftmost first and the longest at each place."""
        if not self._found_ids:
            return []
        (found,) = self._finder.encode_batch([_checked(text)], add_special_tokens=False)
        return [(*span, self._found_ids[i]) for span, i in zip(found.offsets, found.ids, strict=True)]

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        encoded = self._encoder.encode_batch_fast([_checked(text) for text in texts], add_special_tokens=False)
        return [item.ids for item in encoded]


def _unguarded(text: str) -> str:
    return re.sub(f"{GUARD}({GUARD}?)", r"\1", text) if GUARD in text else text


def _checked(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"text: character {error.start} is half of a surrogate pair") from None
    return text
