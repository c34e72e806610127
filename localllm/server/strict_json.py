"""Bodies of requests: JSON as RFC 8259 has it, and only that part of it which every reader understands alike.

Refused: anything but UTF-8, NaN and Infinity, numbers beyond a double, integers beyond 2**53, a name twice in one
object, half of a surrogate pair, nesting deeper than 128, more than half a million values: a body of few bytes a value
would take many times its size as objects, and everybody's streams would stand still while they are made."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from localllm.server.problems import Problem, invalid

DEPTH = 128
VALUES = 1 << 19  # items of arrays and objects: their commas and brackets are counted
LARGEST = 2**53
PIECE = 1 << 20  # bytes to look at in one call, during which no other thread gets a turn
_MARK = re.compile(rb'[\[\]{},"]')
_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.S)  # of a string, up to its end or a piece's
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body is. Problem 400 says what is wrong with it."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (byte {error.start})") from None
    _check_size(body)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error.msg} (character {error.pos})") from None
    except (RecursionError, ValueError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object")
    if _SURROGATE.search(body):
        _check_text(value)
    return value


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
    value = int(digits) if len(digits) < 20 else LARGEST + 1
    if abs(value) > LARGEST:
        raise _bad(f"the integer {digits:.24} is beyond 2**53")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _bad(f"the number {digits:.24} is too large")
    return value


def _check_text(value: dict[str, Any]) -> None:
    """Names the field whose text is no Unicode."""
    for name, item in value.items():
        try:
            name.encode()
            _encode(item)
        except UnicodeEncodeError:
            raise invalid(f"{_shown(name)}: half of a surrogate pair", _shown(name), "invalid_json") from None


def _encode(value: Any) -> None:
    """Encodes every text, which fails on half of a surrogate pair."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for name, item in value.items():
            name.encode()
            _encode(item)
    elif isinstance(value, list):
        for item in value:
            _encode(item)


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:100]
