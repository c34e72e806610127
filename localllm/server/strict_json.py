"""Bodies of requests: JSON as RFC 8259 has it, and only that part of it which every reader understands alike.

parse() refuses anything but UTF-8, NaN and Infinity, a name twice in one object, nesting deeper than 128. check(), for
what is left when fields were dropped, refuses numbers beyond a double, integers that 64 bits do not hold, half of a
surrogate pair; integers up to there are exact."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from localllm.server.problems import Problem, invalid

DEPTH = 128
LEAST, LARGEST = -(2**63), 2**64 - 1
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.S)
# Without any of these in a body nothing can be wrong with its numbers and texts.
_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]|[0-9]{19}|[eE]\+?[0-9]{3}")


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body is. Problem 400 says what is wrong with it."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (byte {error.start})") from None
    if _depth(body) > DEPTH:
        raise _bad(f"the body is nested deeper than {DEPTH}")
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
    if not path and not _SUSPECT.search(body):
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


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    """Beyond 400 digits any such number does: check() refuses it."""
    return int(digits[:400])


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:100]
