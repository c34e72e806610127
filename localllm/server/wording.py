"""What msgspec refuses, in plain words: the field, what was expected there, and what was found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(.*)`")
_STEP = re.compile(r"\[(\d+)\]|\[(\.\.\.)\]|\.?([^.\[]+)")
_EXPECTED = re.compile(r"Expected `([^`]*)`(?: (of length )?(>=|<=) (\S+))?(?: matching regex '(.*)')?")
_KINDS = {"str": "a text", "int": "an integer", "float": "a number", "bool": "true or false", "array": "a list",
          "object": "an object"}  # fmt: skip
_NO_TEXT = ("image", "audio", "file", "video")  # in the types of parts that other models read
_SHOWN = 60  # most characters of a text that is told back

Path = list[str | int]


class Refusal(NamedTuple):
    path: str
    sentence: str
    code: str


def refusal(message: str, value: Any, choices: Callable[[Path], list[str]]) -> Refusal:
    """message: of a msgspec.ValidationError about the value. choices: the words that may stand at a path."""
    at = _AT.search(message)
    path, sentence = (at[1], message[: at.start()]) if at else ("", message)
    if field := _FIELD.search(sentence):
        path = f"{path}.{field[1]}" if path else field[1]
        if "unknown" in sentence:
            return Refusal(path, "this is not a field that this server knows", "unknown_parameter")
        return Refusal(path, "this field is missing", "missing_required_parameter")
    steps: Path = [int(step[1]) if step[1] else step[2] or step[3] for step in _STEP.finditer(path)]
    found = _found(value, steps)
    if sentence.startswith("Invalid"):
        words = choices(steps)
        if "type" in steps[-1:] and "content" in steps and any(kind in found for kind in _NO_TEXT):
            return Refusal(path, f"the model reads text only, found a part of type {found}", "invalid_value")
        return Refusal(path, f"expected {_either(words)}, found {found}", "invalid_value")
    return Refusal(path, f"expected {_expected(sentence)}{found and ', found ' + found}", "invalid_value")


def _expected(sentence: str) -> str:
    wanted = _EXPECTED.match(sentence)
    if wanted is None:
        return sentence
    kinds, length, bound, number, pattern = wanted.groups()
    text = _either([_KINDS[kind] for kind in kinds.split(" | ") if kind in _KINDS])
    if pattern:
        return f"{text} that matches {pattern}"
    if bound:
        limit = number.removesuffix(".0")
        size = _size(int(limit), "character" if kinds == "str" else "entry") if length else limit
        return f"{text} of {'at least' if bound == '>=' else 'at most'} {size}"
    return text


def _found(value: Any, steps: Path) -> str:
    """What stands at a path, in a few words; empty where the path is not told whole."""
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return ""
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"a text of {_size(len(value), 'character')}"
    if isinstance(value, list):
        return f"a list of {_size(len(value), 'entry')}"
    return "an object" if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


def _size(count: int, unit: str) -> str:
    return f"{count} {unit if count == 1 else {'entry': 'entries'}.get(unit, unit + 's')}"


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "another value"
