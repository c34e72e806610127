"""Bodies of requests: JSON as RFC 8259 has it, and only that part of it which every reader understands alike.

parse() refuses anything but UTF-8, NaN and Infinity, a name twice in one object, nesting deeper than 128, and more than
half a million values: a body of few bytes a value would take many times its size as objects, and everybody's streams
would stand still while they are made. check(), for what is left when fields were dropped, refuses numbers beyond a
double, integers that 64 bits do not hold, half of a surrogate pair; integers up to there are exact."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from localllm.server.problems import Problem, invalid

DEPTH = 128
VALUES = 1 << 19  # items of arrays and objects: their commas and brackets are counted
PIECE = 1 << 20  # bytes to look at in one call, during which no other thread gets a turn
LONGEST = 20  # bytes that a suspect takes: it may lie across pieces
LEAST, LARGEST = -(2**63), 2**64 - 1
_MARK = re.compile(rb'[\[\]{},"]')
_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.S)  # of a string, up to its end or a piece's
# Without any of these in a body nothing can be wrong with its numbers and texts.
_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]|[0-9]{19}|[eE]\+?[0-9]{3}")


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body is. Problem 400 says what is wrong with it."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (byte {error.start})") from None
    _check_size(body)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error.msg} (character {error.pos})") from None
    except (RecursionError, ValueError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object")
    return value


def check(value: Any, body: bytes, path: str = "") -> None:
    """Problem 400 names the field whose number is too large, or whose text is no Unicode. body: what it came from."""
    if not path and not _is_suspect(body):
        return
    if isinstance(value, dict):
        for name, item in value.items():
            inner = f"{path}.{_shown(name)}" if path else _shown(name)
            check(name, body, inner)
            check(item, body, inner)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            check(item, body, f"{path}[{i}]")
    elif isinstance(value, str):
        if not value.isascii() and not _is_unicode(value):
            raise invalid(f"{path}: half of a surrogate pair", path, "invalid_json")
    elif isinstance(value, int):
        if not LEAST <= value <= LARGEST:
            raise invalid(f"{path}: the number is too large: integers go from -2**63 to 2**64 - 1", path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise invalid(f"{path}: the number is too large for a double", path)


def _is_suspect(body: bytes) -> bool:
    return any(_SUSPECT.search(body, at, at + PIECE + LONGEST) for at in range(0, len(body), PIECE))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(message: str) -> Problem:
    return invalid(message, code="invalid_json")


def _check_size(body: bytes) -> None:
    """Refuses, before any of it is made, what would take long to make or is nested too deeply. What is no JSON may
    pass: the parser will tell. It looks at a piece at a time, so that other threads get their turns."""
    if body.count(b"[") + body.count(b"{") <= DEPTH and body.count(b",") < VALUES - DEPTH:
        return
    values, depth, at = 1, 0, 0
    while at < len(body):
        found = _MARK.search(body, at, at + PIECE)
        if found is None:
            at += PIECE
            continue
        at, mark = found.end(), found[0]
        if mark == b'"':
            at = _end_of_string(body, at)
        elif mark in b"[{,":
            values += 1
            depth += mark != b","
        else:
            depth -= 1
        if depth > DEPTH:
            raise _bad(f"the body is nested deeper than {DEPTH}")
        if values > VALUES:
            raise Problem(413, f"the body has more than {VALUES} values", code="body_too_large")


def _end_of_string(body: bytes, at: int) -> int:
    """Where the string that has begun there is over."""
    while at < len(body):
        found = _REST.match(body, at, at + PIECE)
        assert found is not None  # of nothing, at least
        at = found.end()
        if body[at : at + 1] == b'"':
            return at + 1
        if body[at : at + 1] == b"\\":  # what is escaped lies beyond the piece
            at += 2
    return at


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise invalid(f"{_shown(twice)} stands twice in one object", _shown(twice), "invalid_json")
    return value


def _constant(name: str) -> Any:
    raise _bad(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    """Beyond 400 digits any such number does: check() refuses it."""
    return int(digits[:400])


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:100]
