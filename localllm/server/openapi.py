"""/openapi.json: the interface as programs read it, made from the table that requests are checked with."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from localllm import __version__
from localllm.server import requests, wire

_BODIES = {
    "/v1/chat/completions": (requests.ChatRequest, "Answer a conversation"),
    "/v1/completions": (requests.CompletionRequest, "Continue a prompt"),
    "/tokenize": (requests.TokenizeRequest, "Text to token ids"),
    "/detokenize": (requests.DetokenizeRequest, "Token ids to text"),
}
_READS = {"/v1/models": "The models", "/health": "Whether requests are taken", "/metrics": "Prometheus' metrics"}


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    template = "#/components/schemas/{name}"
    schemas, components = msgspec.json.schema_components([kind for kind, _ in _BODIES.values()], ref_template=template)
    for component in components.values():
        _allow_null(component)
    paths: dict[str, Any] = {}
    for (path, (_, text)), schema in zip(_BODIES.items(), schemas, strict=True):
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths[path] = {"post": {"summary": text, "requestBody": body, "responses": _responses()}}
    for path, text in _READS.items():
        paths[path] = {"get": {"summary": text, "responses": _responses()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "localllm", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _allow_null(component: dict[str, Any]) -> None:
    """A field that is null counts as absent."""
    for name, schema in component.get("properties", {}).items():
        if name not in component.get("required", ()):
            component["properties"][name] = {"anyOf": [schema, {"type": "null"}]}


def _responses() -> dict[str, Any]:
    error = {"description": "An error object, which names the field where one is to blame"}
    return {"200": {"description": "Done"}, "4XX": error, "5XX": error}


async def openapi(http: Request) -> Response:
    return Response(wire.encode(document()), media_type="application/json")
