"""Calls of functions in what a model writes: the forms that families of models have, and how calls are found in text
that comes bit by bit.

FORMATS are those of models trained to call functions. For any other there is one generic form: a JSON object with a
name and arguments, or an array of such, perhaps in a fence of ```json. Text that turns out to be no call is text. The
arguments of a call are the model's own text, never written anew: numbers keep their digits. NaN and Infinity are no
JSON, so what has them is no call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

MOST_FAILURES = 64  # brackets in an answer that begin no JSON, before the rest is not looked at
_FIRST = ("name", "arguments", "parameters", "type", "id")  # the fields that a call may begin with
_FENCES = ("```json", "```")
_FENCE = re.compile(r"```(?:json)?\s*\Z")
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
# As much of the beginning of a call as there is: a brace, a field, and its name where that is the first.
_BEGUN = re.compile(r'(?:\[\s*)?(?:\{\s*(?:"(\w*)(?:(")\s*(?::\s*(?:"([^"\\]*)(")?)?)?)?)?)?')
# A call of the form that answers are held to, as far as it came.
_CUT = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")(?:\s*,\s*"arguments"\s*:\s*(.*))?', re.S)


class Call(NamedTuple):
    name: str
    arguments: str  # a JSON object, or where the call was cut the beginning of one


class Format(NamedTuple):
    """How a family of models writes calls: from one of `opens` on, or, where there are none, as the whole answer."""

    opens: tuple[str, ...]
    in_template: str  # by which its templates are known
    marks: tuple[str, ...] = ()  # special tokens that must be seen for calls to be found
    ends: tuple[str, ...] = ()  # what may stand behind a call and is no text


GENERIC = Format((), "", (), ("```",))
FORMATS = (
    Format(("<tool_call>",), "<tool_call>", ("<tool_call>", "</tool_call>"), ("</tool_call>",)),  # Hermes, Qwen
    Format(("[TOOL_CALLS]",), "[TOOL_CALLS]", ("[TOOL_CALLS]",)),  # Mistral
    Format(
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        "<｜tool▁calls▁begin｜>",
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ),
        ("```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),  # DeepSeek
    Format(("<|python_tag|>",), "<|python_tag|>", ("<|python_tag|>",)),  # Llama 3.1, which also writes plain JSON
    Format(
        ("<|channel|>commentary to=functions.", " to=functions."),
        "<|channel|>commentary",
        ("<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|start|>", "<|end|>"),
        ("<|call|>",),
    ),  # gpt-oss
)


def formats_of(template: str) -> tuple[Format, ...]:
    """How the model of a template may write calls. Plain JSON is always understood."""
    return (*[known for known in FORMATS if known.in_template in template][:1], GENERIC)


class CallReader:
    """Feed text to push() and show what it returns; after the last, finish() gives the rest and the calls.

    names: the functions that there are; what names another is text. required: the answer is held to a call, of which
    nothing is text; where it was cut, as `cut` then says, the call comes as far as it was written if its name was."""

    def __init__(self, formats: Sequence[Format], names: Sequence[str], required: bool = False) -> None:
        self._opens = [mark for known in formats for mark in known.opens]
        self._ends = [mark for known in formats for mark in known.ends]
        self._names, self._required = frozenset(names), required
        self._held = ""
        self._state = "start"  # then "json" while calls may be the whole answer; "text", and "calls" behind a mark
        self._outline = _Outline()
        self.cut = False

    def push(self, text: str) -> str:
        """The text that is no call for certain."""
        self._held += text
        if self._required or self._state == "calls":
            return ""
        if self._state == "start":
            begun = self._held.lstrip()
            begins = _begins_call(begun, self._names)
            if begins is None or any(mark.startswith(begun) for mark in self._opens):
                return ""
            self._state, text = "json" if begins else "text", self._held
        if self._state == "json":
            if not self._outline.ends_in(text):
                return ""
            self._state = "calls" if self._known(find_calls(self._held)) else "text"
        return self._show() if self._state == "text" else ""

    def finish(self) -> tuple[str, list[Call]]:
        """The text that was held back, what stands behind calls included, and the calls."""
        held, self._held = self._held, ""
        if self._required:
            return "", self._known(find_calls(held)) or self._begun_call(held)
        return self._apart(held) if self._state in ("json", "calls") else (held, [])

    def _show(self) -> str:
        found = [at for mark in self._opens if (at := self._held.find(mark)) >= 0]
        keep = len(self._held) - min(found) if found else max((_overlap(self._held, m) for m in self._opens), default=0)
        if found:
            self._state = "calls"
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def _known(self, calls: Sequence[Call]) -> list[Call]:
        return [call for call in calls if call.name in self._names]

    def _begun_call(self, text: str) -> list[Call]:
        found = _CUT.match(text)
        self.cut = True
        return self._known([Call(json.loads(found[1]), found[2] or "")]) if found else []

    def _apart(self, text: str) -> tuple[str, list[Call]]:
        """The text around calls, and the calls; what is neither call nor words goes."""
        words, calls, at = "", [], 0
        for begin, end, found in _located(text):
            if known := self._known(found):
                words += self._words(text[at:begin], before_call=True)
                calls += known
                at = end
        return words + self._words(text[at:]) if calls else text, calls

    def _words(self, text: str, before_call: bool = False) -> str:
        """What stands before a call, or behind the last, without the marks of calls."""
        if before_call:
            heads = [at for mark in self._opens if (at := text.rfind(mark)) >= 0]
            text = _FENCE.sub("", text[: min(heads, default=len(text))])
        while end := next((mark for mark in self._ends if text.lstrip().startswith(mark)), ""):
            text = text.lstrip().removeprefix(end)
        return text if text.strip(" \t\n\r,;") else ""


class _Outline:
    """Where the first value in brackets ends, in text that comes bit by bit: every character is looked at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False

    def ends_in(self, text: str) -> bool:
        for character in text:
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string = True
            elif character in "[{":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
                if self._depth <= 0:
                    return True
        return False


def _begins_call(text: str, names: frozenset[str]) -> bool | None:
    """Whether a text begins as a call in JSON does, perhaps in a fence; None as long as that is open."""
    for fence in _FENCES:
        if fence.startswith(text):
            return None
        if text.startswith(fence):
            text = text.removeprefix(fence).lstrip()
            break
    begun = _BEGUN.match(text)
    assert begun is not None  # it matches the empty text
    field, field_ends, name, name_ends = begun.groups()
    if field_ends and field != _FIRST[0]:
        return field in _FIRST
    if name_ends:
        return name in names
    known, written = (names, name) if field_ends else (_FIRST, field)
    is_open = begun.end() == len(text) and any(word.startswith(written or "") for word in known)
    return None if is_open else False


def find_calls(text: str) -> list[Call]:
    """All calls in a text of any of the formats: JSON objects with a name and arguments, alone, in arrays or between
    marks; and those whose name stands before their arguments."""
    return [call for _, _, calls in _located(text) for call in calls]


def _located(text: str) -> Iterator[tuple[int, int, list[Call]]]:
    """Where each JSON value in a text begins and ends, and the calls in it."""
    end = failures = 0
    while failures < MOST_FAILURES and (begin := _next_bracket(text, end)) >= 0:
        try:
            value, end = _JSON.raw_decode(text, begin)
        except (ValueError, RecursionError):
            end, failures = begin + 1, failures + 1
            continue
        name = _name_before(text[:begin])
        if name and isinstance(value, dict):
            calls: list[Call | None] = [Call(name, text[begin:end])]
        elif isinstance(value, list):
            calls = [_call(item, text, at) for item, at in zip(value, _items(text, begin), strict=True)]
        else:
            calls = [_call(value, text, begin)]
        yield begin, end, [call for call in calls if call is not None]


def _next_bracket(text: str, at: int) -> int:
    found = [i for i in (text.find("{", at), text.find("[", at)) if i >= 0]
    return min(found, default=-1)


def _call(value: Any, text: str, begin: int) -> Call | None:
    """The call that a value is, which begins there in the text."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    field = "arguments" if "arguments" in value else "parameters"
    arguments = value.get(field)
    if isinstance(arguments, dict):
        return Call(value["name"], _members(text, begin)[field])
    if not isinstance(arguments, str) or not is_object(arguments):
        return None
    # JSON within a text: half of a surrogate pair that was escaped for the text must be so again, which changes nothing
    return Call(value["name"], _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", arguments))


def is_object(text: str) -> bool:
    """Whether a text is a JSON object, as every reader understands it."""
    try:
        value, end = _JSON.raw_decode(text, _skip(text, 0))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and _skip(text, end) == len(text)


def _members(text: str, at: int) -> dict[str, str]:
    """The fields of an object that begins there, each with its value's own text."""
    fields: dict[str, str] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = _JSON.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + 1)  # behind the colon
        _, at = _JSON.raw_decode(text, begin)
        fields[name] = text[begin:at]
        at = _next(text, at)
    return fields


def _items(text: str, at: int) -> Iterator[int]:
    """Where each item of an array begins that begins there."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        yield at
        at = _next(text, _JSON.raw_decode(text, at)[1])


def _next(text: str, at: int) -> int:
    """Behind white space and a comma."""
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _name_before(text: str) -> str:
    """The function named before its arguments: DeepSeek's and gpt-oss's way."""
    mark = text.rfind("<｜tool▁sep｜>")
    if mark >= 0 and text.endswith("```json\n"):
        return text[mark + len("<｜tool▁sep｜>") : -len("```json\n")].strip()
    mark = text.rfind("to=functions.")
    if mark >= 0 and text.endswith("<|message|>"):
        return re.split(r"[\s<]", text[mark + len("to=functions.") :], maxsplit=1)[0]
    return ""


def _overlap(text: str, mark: str) -> int:
    """The length of the longest end of the text that begins the mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse, parse_int=float)  # no value is passed on: any digits will do
