"""From a body to a checked request: JSON, without what says nothing, that fits the table in requests.py."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Struct

from localllm.server import strict_json
from localllm.server.problems import invalid
from localllm.server.wording import refusal

R = TypeVar("R", bound=Struct)
Kind = Any  # a class of requests.py, with its tables of what says nothing


def read(kind: type[R], body: bytes) -> R:
    """The request that a body is. Problem 400 names the first field that is wrong."""
    values = _tidy(kind, strict_json.parse(body))
    strict_json.check(values, body)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        wrong = refusal(str(error), values, lambda path: _choices(kind, values, path))
        only = getattr(kind, "neutral", {}).get(wrong.path) if wrong.code == "unknown_parameter" else None
        sentence = f"expected {_listed(only)}, all that this server can do" if only else wrong.sentence
        raise invalid(f"{wrong.path}: {sentence}", wrong.path, wrong.code) from None


@cache
def objects_in(kind: Kind) -> dict[str, tuple[Kind, ...]]:
    """By field, the kinds of objects that may stand there, alone or in a list."""
    return {name: _structs(hint) for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__}


def _structs(hint: Any) -> tuple[Kind, ...]:
    if isinstance(hint, type) and issubclass(hint, Struct):
        return (hint,)
    return tuple(found for argument in get_args(hint) for found in _structs(argument))


def _kind_of(value: dict[str, Any], kinds: tuple[Kind, ...]) -> Kind | None:
    """Which of the kinds an object is, by its tag where there are several."""
    if len(kinds) == 1:
        return kinds[0]
    tags = (kind.__struct_config__ for kind in kinds)
    return next((kind for kind, own in zip(kinds, tags, strict=True) if value.get(own.tag_field) == own.tag), None)


def _tidy(kind: Kind, value: dict[str, Any]) -> dict[str, Any]:
    """Without nulls and what else says nothing; other names as those that they stand for."""
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if item is None or _is_neutral(kind, name, item):
            continue
        if value.get(kind.names.get(name)) in (None, item):
            name = kind.names.get(name, name)
        kept[name] = _tidied(item, objects_in(kind).get(name, ()))
    return kept


def _tidied(item: Any, kinds: tuple[Kind, ...]) -> Any:
    if not kinds:
        return item
    if isinstance(item, list):
        return [_tidied(one, kinds) for one in item]
    kind = _kind_of(item, kinds) if isinstance(item, dict) else None
    return item if kind is None else _tidy(kind, item)


def _is_neutral(kind: Kind, name: str, item: Any) -> bool:
    values = kind.neutral.get(name, ())
    return values is None or any(_same(item, value) for value in values)


def _same(one: Any, other: Any) -> bool:
    """As JSON has it, where true is no 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _choices(kind: Kind, value: Any, path: list[str | int]) -> list[str]:
    """The words that may stand at a path, where only some may."""
    kinds: tuple[Kind, ...] = (kind,)
    for step in path[:-1]:
        if isinstance(step, str):
            own = _kind_of(value, kinds)
            kinds = objects_in(own).get(step, ()) if own else ()
        value = value[step]
    tags = [str(one.__struct_config__.tag) for one in kinds if one.__struct_config__.tag_field == path[-1]]
    own = _kind_of(value, kinds) if isinstance(value, dict) and not tags else None
    return tags or (_words(get_type_hints(own).get(str(path[-1]))) if own else [])


def _words(hint: Any) -> list[str]:
    """Of a type that is, or may be, one of some words."""
    arguments = get_args(hint)
    return [word for one in arguments for word in ([one] if isinstance(one, str) else _words(one))]


def _listed(values: tuple[Any, ...]) -> str:
    return " or ".join(msgspec.json.encode(value).decode() for value in values)
