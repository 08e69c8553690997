"""The ASGI application: every route mounted, every refusal in OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmos.abi.blob import BlobSink
from llmos.abi.ids import new_id
from llmos.abi.principal import Authenticator, Authorizer
from llmos.api.call import Edge, Endpoint
from llmos.api.config import ApiConfig
from llmos.api.gate import GateClient
from llmos.api.openapi import openapi_route
from llmos.api.routes import (
    chat,
    completions,
    health,
    keys,
    models,
    openai_models,
    system,
    uploads,
)
from llmos.api.routes.spec import RouteSpec
from llmos.api.status import INVALID

ROUTES: list[RouteSpec] = [
    *chat.ROUTES,  # first: routes are tried in order
    *completions.ROUTES,
    *openai_models.ROUTES,
    *models.ROUTES,
    *system.ROUTES,
    *keys.ROUTES,
    *uploads.ROUTES,
    *health.ROUTES,
]


def build_app(
    gate: GateClient,
    authenticator: Authenticator,
    sink: BlobSink,
    render_metrics: Callable[[], tuple[bytes, str]],
    config: ApiConfig,
    *,
    authorizer: Authorizer,
    allowed_uid: int | None = None,
) -> Starlette:
    """The edge over one gate. `allowed_uid` may name local paths over the unix socket.

    `authorizer` is asked for what does not pass the gate: uploads and metrics.
    """
    edge = Edge(gate, authenticator, authorizer, sink, render_metrics, config, allowed_uid)
    specs = [*ROUTES, openapi_route(ROUTES)]
    app = Starlette(
        routes=[
            Route(s.path, Endpoint(edge, s.handler, s.needs_key), methods=[s.method]) for s in specs
        ],
        exception_handlers={HTTPException: _http_exception},
    )
    app.router.redirect_slashes = False  # a redirected POST loses its body in many clients
    return app


async def _http_exception(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = f"{error.detail}: {request.method} {request.url.path}"
    envelope = {"error": {"message": message, "type": INVALID, "param": None, "code": code}}
    return Response(
        msgspec.json.encode(envelope),
        status_code=error.status_code,
        media_type="application/json",
        headers={"x-request-id": new_id("req"), **(error.headers or {})},
    )
