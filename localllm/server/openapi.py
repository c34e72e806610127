"""/openapi.json: the interface as programs read it, made from the table that requests are checked with and the shapes
that are sent. tests/server/test_openapi.py holds the server to it."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from localllm import __version__
from localllm.server import requests, wire
from localllm.server.reading import objects_in

_POSTS: list[tuple[str, Any, Any, str]] = [  # path, request, reply, what it does
    ("/v1/chat/completions", requests.ChatRequest, wire.Chunk[wire.ChatChoice], "Answer a conversation"),
    ("/v1/completions", requests.CompletionRequest, wire.Chunk[wire.TextChoice], "Continue a prompt"),
    ("/tokenize", requests.TokenizeRequest, wire.Tokens, "Text to token ids"),
    ("/detokenize", requests.DetokenizeRequest, wire.Content, "Token ids to text"),
]
_GETS: list[tuple[str, Any, str]] = [  # path, reply, what it tells
    ("/v1/models", wire.Models, "The models"),
    ("/v1/models/{name}", wire.Model, "One of them"),
    ("/health", wire.Health, "Whether requests are taken"),
]
_TEXTS = {"/metrics": "Prometheus' metrics"}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    bodies, asked = _schemas([row[1] for row in _POSTS])
    for component in asked.values():
        _allow_null(component)
    for kind in {kind for row in _POSTS for kind in _objects(row[1])}:
        _allow_neutral(asked[kind.__name__]["properties"], kind)
    (failed, *replies), told = _schemas([wire.Failed, *[row[-2] for row in _POSTS + _GETS]], "Reply")
    paths: dict[str, Any] = {}
    for (path, *_, text), body, reply in zip(_POSTS, bodies, replies, strict=False):
        content = _json(reply)
        if path.startswith("/v1/"):
            content["text/event-stream"] = {}
        request = {"required": True, "content": _json(body)}
        paths[path] = {"post": {"summary": text, "requestBody": request, "responses": _responses(content, failed)}}
    for (path, _, text), reply in zip(_GETS, replies[len(_POSTS) :], strict=True):
        paths[path] = {"get": {"summary": text, "responses": _responses(_json(reply), failed)}}
        if "{name}" in path:
            paths[path]["parameters"] = [_NAME]
    for path, text in _TEXTS.items():
        paths[path] = {"get": {"summary": text, "responses": _responses({"text/plain": {}}, failed)}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "localllm", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**asked, **told}},
    }


def _schemas(kinds: list[Any], prefix: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for each, and the components that these refer to, whose names begin with the prefix."""
    template = f"#/components/schemas/{prefix}{{name}}"
    schemas, components = msgspec.json.schema_components(kinds, ref_template=template)
    return list(schemas), {prefix + name: component for name, component in components.items()}


def _allow_null(component: dict[str, Any]) -> None:
    """A field that is null counts as absent, whether it is known or not."""
    for name, schema in component.get("properties", {}).items():
        if name not in component.get("required", ()):
            component["properties"][name] = {"anyOf": [schema, {"type": "null"}]}
    if component.get("additionalProperties") is False:
        component["additionalProperties"] = {"type": "null"}


def _objects(kind: Any) -> set[Any]:
    """The kinds of objects in a request, itself included."""
    inside = [found for kinds in objects_in(kind).values() for found in kinds]
    return {kind}.union(*[_objects(found) for found in inside])


def _allow_neutral(properties: dict[str, Any], kind: Any) -> None:
    """What says nothing, and other names for what can be said."""
    for name, values in kind.neutral.items():
        schema = {} if values is None else {"enum": [*values, None]}
        properties[name] = {"anyOf": [properties[name], schema]} if name in properties else schema
    for name, proper in kind.names.items():
        properties[name] = properties[proper]


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _responses(content: dict[str, Any], failed: dict[str, Any]) -> dict[str, Any]:
    error = {"description": "An error, which names the field where one is to blame", "content": _json(failed)}
    return {"200": {"description": "Done", "content": content}, "4XX": error, "5XX": error}


async def openapi(http: Request) -> Response:
    return Response(wire.encode(document()), media_type="application/json")
