"""JSON schemas as callers give them, made ready for llguidance: what it would silently not hold an answer to is written
in a way that it does, or refused by name; and a schema can be moved into another.

Assumes nothing of a schema but that it is JSON. What stands in const, enum, default and examples is data, in which
nothing is a keyword.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from localllm.errors import InvalidArgument

MOST_SOURCE = 256 << 10  # characters of a grammar, or of a schema as JSON
MOST_DEPTH = 64
MOST_NODES = 20_000
MOST_PATTERN = 4 << 10  # characters
_DATA = frozenset({"const", "enum", "default", "examples", "example"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})  # schemas by name
_NUMBERS = ("const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
MOST_INTEGER = 2**53  # beyond, the double that llguidance makes of a number may be another
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_BOUNDS = {"minimum": -1, "exclusiveMinimum": -1, "maximum": 1, "exclusiveMaximum": 1}
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


@contextmanager
def about(name: str) -> Iterator[None]:
    """Errors begin with the name of what they are about."""
    try:
        yield
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error}") from None


def parsed(text: str | Mapping[str, Any]) -> Any:
    """A schema that may come as JSON."""
    if not isinstance(text, str):
        return text
    if len(text) > MOST_SOURCE:
        raise InvalidArgument(f"it has {len(text)} characters; at most {MOST_SOURCE} are allowed")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"this is not JSON: {error}") from None


def ready(schema: Any, home: str = "#") -> Any:
    """A schema whose root lies at `home`, a JSON pointer, of the schema that is compiled."""
    _check_size(schema)
    if home != "#" and isinstance(schema, Mapping):  # its references say where they lead without it
        schema = {key: value for key, value in schema.items() if key != "$id"}
    return _ready(schema, home)


def _ready(schema: Any, home: str) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    if "x-guidance" in schema:
        raise InvalidArgument('"x-guidance" is no keyword of JSON schema')
    if home != "#" and isinstance(schema.get("$id"), str):
        raise InvalidArgument('"$id" is held to only at the root of a schema')
    _check_patterns(schema)
    made = {key: _value(key, value, home) for key, value in schema.items()}
    _with_null(made)
    _with_numbers(made)
    _with_range(made)
    _with_exact_bounds(made)
    for key in _NUMBERS:
        _check_integers(key, made.get(key))
    return made


def _value(key: str, value: Any, home: str) -> Any:
    if key in _DATA:
        return value
    if key == "$ref" and isinstance(value, str) and home != "#":
        return _moved(value, home)
    if isinstance(value, list):
        return [_ready(item, home) for item in value]
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _ready(item, home) for name, item in value.items()}
    return _ready(value, home)


def _moved(reference: str, home: str) -> str:
    if reference != "#" and not reference.startswith("#/"):
        raise InvalidArgument(f'"$ref": {reference[:100]!r} cannot be followed here: expected "#" or "#/..."')
    return home + reference[1:]


def _with_null(schema: dict[str, Any]) -> None:
    """OpenAPI 3.0's `nullable` adds null to the types beside it, and does nothing without any."""
    nullable = schema.pop("nullable", False)
    if not isinstance(nullable, bool):
        raise InvalidArgument(f'"nullable" must be true or false, not {str(nullable)[:100]!r}')
    if not nullable:
        return
    if "type" not in schema:
        raise InvalidArgument('"nullable" is held to only beside "type": write {"anyOf": [..., {"type": "null"}]}')
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    schema["type"] = [*kinds, *(["null"] if "null" not in kinds else [])]


def _with_numbers(schema: dict[str, Any]) -> None:
    """Draft 4's exclusive bounds are true or false, and say how another bound is meant."""
    for exclusive, bound in _EXCLUSIVE.items():
        if not isinstance(schema.get(exclusive), bool):
            continue
        if schema.pop(exclusive):
            if bound not in schema:
                raise InvalidArgument(f'"{exclusive}": true needs a "{bound}"')
            schema[exclusive] = schema.pop(bound)


def _with_range(schema: dict[str, Any]) -> None:
    """OpenAPI's formats of integers are bounds."""
    limits = _RANGES.get(str(schema.get("format")))
    if limits and schema.get("type") == "integer":
        for bound, limit, nearer in zip(("minimum", "maximum"), limits, (max, min), strict=True):
            given = schema.get(bound, limit)
            schema[bound] = nearer(given, limit) if isinstance(given, int | float) else given


def _with_exact_bounds(schema: dict[str, Any]) -> None:
    """Bounds beyond the exact integers are as good as none: answers keep narrower ones."""
    for bound, sign in _BOUNDS.items():
        if isinstance(schema.get(bound), int) and schema[bound] * sign > MOST_INTEGER:
            schema[bound] = MOST_INTEGER * sign


def _check_patterns(schema: Mapping[str, Any]) -> None:
    names = schema.get("patternProperties")
    for pattern in (schema.get("pattern"), *(names if isinstance(names, Mapping) else ())):
        if isinstance(pattern, str) and len(pattern) > MOST_PATTERN:
            raise InvalidArgument(f"a pattern has at most {MOST_PATTERN} characters, not {len(pattern)}")


def _check_integers(key: str, data: Any) -> None:
    """Refuses those that would silently become others."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            _check_integers(key, item)
    elif isinstance(data, int) and abs(data) > MOST_INTEGER:
        raise InvalidArgument(f'"{key}": integers are held to from -2**53 to 2**53, not {data}')


def _check_size(schema: Any) -> None:
    """Bounds on what will be compiled, found without recursion."""
    level, nodes, depth = [schema], 0, 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if depth > MOST_DEPTH or nodes > MOST_NODES:
            raise InvalidArgument(f"it is too large: at most {MOST_NODES} values, nested {MOST_DEPTH} deep")
        inner = [value.values() if isinstance(value, Mapping) else value for value in level
                 if isinstance(value, (Mapping, list, tuple))]  # fmt: skip
        level = [item for values in inner for item in values]
