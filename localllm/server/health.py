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
        """200 while requests are taken, 503 otherwise."""
        status = self._service.status
        return Response(wire.encode({"status": status}), 200 if status == "ok" else 503, media_type="application/json")
