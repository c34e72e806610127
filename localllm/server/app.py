"""The ASGI application: routes, and what becomes of errors."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from localllm.errors import LocalLLMError
from localllm.server.access_log import AccessLog, Lines
from localllm.server.endpoints import Endpoints
from localllm.server.guard import Guard
from localllm.server.health import Health
from localllm.server.openapi import openapi
from localllm.server.preparation import prepared
from localllm.server.problems import Problem
from localllm.server.service import Service


def make_app(service: Service, lines: Lines | None = None) -> ASGIApp:
    """lines: where the access log goes."""
    endpoints, health = Endpoints(service), Health(service)
    failed, left = partial(_failed, service), partial(_left, service)
    routes = [
        Route("/v1/chat/completions", prepared(service, endpoints.chat), methods=["POST"]),
        Route("/v1/completions", prepared(service, endpoints.completions), methods=["POST"]),
        Route("/v1/models", endpoints.models, methods=["GET"]),
        Route("/v1/models/{name:path}", endpoints.model, methods=["GET"]),
        Route("/tokenize", prepared(service, endpoints.tokenize), methods=["POST"]),
        Route("/detokenize", prepared(service, endpoints.detokenize), methods=["POST"]),
        Route("/health", health.health, methods=["GET"]),
        Route("/metrics", service.metrics.metrics, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _wrong_route, Problem: failed, LocalLLMError: failed,
                                ClientDisconnect: left, Exception: failed}  # fmt: skip
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    options = service.options
    names = [*options.allow_host, f"[{options.host}]" if ":" in options.host else options.host]
    hosts = [name.lower() for name in names] if service.on_loopback or options.allow_host else None
    guarded = Guard(app, options.api_key, options.allow_origin, hosts, service.refused)
    return guarded if lines is None else AccessLog(guarded, lines)


async def _wrong_route(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said, code = f"there is no {http.method} {http.url.path[:200]!r} here", "not_found"
    if error.status_code == 405:
        code = "method_not_allowed"
    return _reply(Problem(error.status_code, said, code=code, headers=dict(error.headers or {})))


async def _failed(service: Service, http: Request, error: Exception) -> Response:
    problem = error if isinstance(error, Problem) else service.problem(error)
    service.refused(http.scope["path"], "refused" if problem.status < 500 else "failed")
    return _reply(problem)


async def _left(service: Service, http: Request, error: Exception) -> Response:
    service.refused(http.scope["path"], "left")
    return Response(status_code=408)  # which nobody will read


def _reply(problem: Problem) -> Response:
    return Response(problem.body, problem.status, problem.headers, "application/json")
