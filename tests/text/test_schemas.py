"""Schemas made ready: what they say stays the same to jsonschema, and what llguidance would not see is refused."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from localllm.errors import InvalidArgument
from localllm.text.schemas import ready

VALUES: list[Any] = [None, True, 0, 4, 5, 5.5, 6, 7, "", "a", "abc", [], {}, {"a": None}, {"a": "x"},
                     {"a": {"$ref": "#/x"}}]  # fmt: skip


def test_null_beside_a_type() -> None:
    """OpenAPI 3.0.3, "nullable"."""
    nullable = ready({"type": "string", "maxLength": 2, "nullable": True})
    assert [value for value in VALUES if jsonschema.Draft202012Validator(nullable).is_valid(value)] == [None, "", "a"]
    assert ready({"type": ["string", "null"], "nullable": True}) == {"type": ["string", "null"]}
    assert ready({"type": "string", "nullable": False}) == {"type": "string"}
    assert ready({"properties": {"nullable": {"const": 1}}}) == {"properties": {"nullable": {"const": 1}}}


def test_bounds_beyond_the_integers_that_are_exact_become_narrower() -> None:
    whole = {"type": "integer", "minimum": -(2**63), "exclusiveMaximum": 2**63}
    assert ready(whole) == {"type": "integer", "minimum": -(2**53), "exclusiveMaximum": 2**53}
    word = {"type": "integer", "format": "int32", "minimum": 5}
    assert ready(word) == word | {"maximum": 2**31 - 1}


@pytest.mark.parametrize(
    "schema",
    [
        {"minimum": 5, "exclusiveMinimum": True}, {"minimum": 5, "exclusiveMinimum": False},
        {"type": "integer", "maximum": 6, "exclusiveMaximum": True, "minimum": 5}, {"exclusiveMaximum": False},
    ],
)  # fmt: skip
def test_bounds_of_draft_4(schema: dict[str, Any]) -> None:
    old, new = jsonschema.Draft4Validator(schema), jsonschema.Draft202012Validator(ready(schema))
    assert [old.is_valid(value) for value in VALUES] == [new.is_valid(value) for value in VALUES]


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"const": 2**53 + 1}, '"const"'), ({"enum": [1, {"a": [-(2**60)]}]}, '"enum"'),
        ({"properties": {"a": {"minimum": 2**53 + 2}}}, '"minimum"'), ({"multipleOf": 10**20}, '"multipleOf"'),
        ({"x-guidance": {}}, "x-guidance"), ({"properties": {"a": {"items": [{"x-guidance": {}}]}}}, "x-guidance"),
        ({"nullable": True}, "nullable"), ({"type": "string", "nullable": "yes"}, "nullable"),
        ({"allOf": [{"exclusiveMaximum": True}]}, "exclusiveMaximum"),
        ({"items": {"pattern": "a" * 4097}}, "4096"), ({"patternProperties": {"a" * 4097: {}}}, "4096"),
    ],
)  # fmt: skip
def test_what_would_not_be_held_is_refused_by_name(schema: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        ready(schema)


def moved(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """The schema as a definition of another."""
    return jsonschema.Draft202012Validator({"$defs": {"home": ready(schema, "#/$defs/home")}, "$ref": "#/$defs/home"})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"const": {"$ref": "#/x"}}}}, {"enum": [{"a": {"$ref": "#/x"}}]},
        {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "type": ["object", "null"]},
        {"$id": "https://example.org/a", "$defs": {"b": {"type": "string"}},
         "properties": {"a": {"$ref": "#/$defs/b"}}},
        {"components": {"b": {"items": {"$ref": "#/components/c"}}, "c": {"type": "null"}}, "$ref": "#/components/b"},
        {"properties": {"$ref": {"type": "string"}, "const": {"$ref": "#"}}, "default": {"$ref": "#"}},
    ],
)  # fmt: skip
def test_a_moved_schema_says_the_same(schema: dict[str, Any]) -> None:
    alone, inside = jsonschema.Draft202012Validator(schema), moved(schema)
    assert [alone.is_valid(value) for value in VALUES] == [inside.is_valid(value) for value in VALUES]


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"$defs": {"a": {"$anchor": "b"}}, "$ref": "#b"}, "ref"), ({"$ref": "https://example.org/a"}, "ref"),
        ({"properties": {"a": {"$id": "b"}}}, "id"),
    ],
)  # fmt: skip
def test_references_that_cannot_be_moved_are_refused(schema: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        ready(schema, "#/$defs/home")
    assert ready(schema) == schema
