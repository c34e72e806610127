"""Bodies of requests: JSON as RFC 8259 has it, and only that part of it which every reader understands alike.

Refused: anything but UTF-8, NaN and Infinity, numbers beyond a double, integers beyond 2**53, a name twice in one
object, half of a surrogate pair, nesting deeper than 128."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from localllm.server.problems import Problem, invalid

DEPTH = 128
LARGEST = 2**53
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.S)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body is. Problem 400 says what is wrong with it."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (byte {error.start})") from None
    if _depth(body) > DEPTH:
        raise _bad(f"the body is nested deeper than {DEPTH}")
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


def _depth(body: bytes) -> int:
    """How deep it is nested, or any number up to DEPTH."""
    if body.count(b"[") + body.count(b"{") <= DEPTH:
        return 0
    deepest = depth = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
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
            json.dumps({name: item}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise invalid(f"{_shown(name)}: half of a surrogate pair", _shown(name), "invalid_json") from None


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:100]
