"""The ASGI application: every route mounted, every refusal in OpenAI's envelope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llmos.abi.blob import BlobSink
from llmos.abi.files import BlobSource
from llmos.abi.ids import new_id
from llmos.abi.logs import LogSource
from llmos.abi.principal import Authenticator, Authorizer
from llmos.abi.settings import SettingInfo
from llmos.api.call import Edge, Endpoint, encode_json
from llmos.api.config import ApiConfig
from llmos.api.gate import GateClient
from llmos.api.openapi import openapi_route
from llmos.api.routes import (
    audio,
    batches,
    chat,
    completions,
    feedback,
    files,
    health,
    home,
    items,
    jobs,
    keys,
    logs,
    models,
    openai_models,
    processes,
    responses,
    speech,
    system,
    tasks,
    uploads,
)
from llmos.api.routes.spec import RouteSpec
from llmos.shapes.status import INVALID
from llmos.telemetry.tracer import Tracer

ROUTES: list[RouteSpec] = [
    *chat.ROUTES,  # first: routes are tried in order
    *completions.ROUTES,
    *responses.ROUTES,
    *items.ROUTES,
    *audio.ROUTES,
    *speech.ROUTES,
    *files.ROUTES,
    *batches.ROUTES,
    *openai_models.ROUTES,
    *models.ROUTES,
    *system.ROUTES,
    *logs.ROUTES,
    *processes.ROUTES,
    *jobs.ROUTES,
    *tasks.ROUTES,
    *home.ROUTES,
    *keys.ROUTES,
    *feedback.ROUTES,
    *uploads.ROUTES,
    *health.ROUTES,
]

SEGMENTS = frozenset(spec.path.split("/")[1] for spec in ROUTES) | {"openapi.json"}
"""First segments of every path of the API."""


def build_app(
    gate: GateClient,
    authenticator: Authenticator,
    sink: BlobSink,
    render_metrics: Callable[[], tuple[bytes, str]],
    config: ApiConfig,
    *,
    authorizer: Authorizer,
    source: BlobSource,
    allowed_uid: int | None = None,
    tracer: Tracer | None = None,
    settings: Sequence[SettingInfo] = (),
    log_source: LogSource | None = None,
) -> Starlette:
    """The edge over one gate. `allowed_uid` may name local paths over the unix socket.

    `authorizer` is asked for what does not pass the gate: uploads, metrics, `settings`.
    """
    edge = Edge(
        gate,
        authenticator,
        authorizer,
        sink,
        source,
        render_metrics,
        config,
        allowed_uid,
        tracer=tracer,
        settings=settings,
        logs=log_source,
    )
    specs = [*ROUTES, openapi_route(ROUTES)]
    app = _EdgeApp(
        routes=[
            Route(s.path, Endpoint(edge, s.handler, s.needs_key, s.path), methods=[s.method])
            for s in specs
        ]
    )
    app.router.redirect_slashes = False  # a redirected POST loses its body in many clients
    return app


class _EdgeApp(Starlette):
    """Starlette without its error middleware, which wraps `send`: that costs on every token.

    Endpoints turn every exception into an answer themselves; what is left is the router's own.
    """

    def build_middleware_stack(self) -> ASGIApp:
        return _Refusals(self.router)


class _Refusals:
    """Answers the router's 404 and 405, which it raises before anything was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except HTTPException as e:
            await _refusal(scope, e)(scope, receive, send)


def _refusal(scope: Scope, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = f"{error.detail}: {scope['method']} {scope['path']}"
    envelope = {"error": {"message": message, "type": INVALID, "param": None, "code": code}}
    return Response(
        encode_json(envelope),
        status_code=error.status_code,
        media_type="application/json",
        headers={"x-request-id": new_id("req"), **(error.headers or {})},
    )
