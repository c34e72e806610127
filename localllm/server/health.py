"""/health: whether requests are answered, for whoever watches over the server. Needs no key and tells no secret."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from localllm.server import wire
from localllm.server.service import Service


class Health:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, http: Request) -> Response:
        """200 while requests are taken, 503 otherwise. Also tells how many requests failed, and why the last did."""
        service = self._service
        told = wire.Health(service.status, service.failures, service.last_failure)
        return Response(wire.encode(told), 200 if told.status == "ok" else 503, media_type="application/json")
