"""/healthz and /readyz, which need no key, and /metrics, which does."""

from __future__ import annotations

import asyncio

import msgspec

from llmos.abi.principal import Action, Resource
from llmos.abi.syscall import Health, HealthReport
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.errors import LLMOSError, ProtocolViolation, WorkerLost


class Liveness(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status` is `ok`, or with the HTTP status 503 `failing` for these `problems`."""

    status: str
    problems: list[str] = []


class Readiness(msgspec.Struct, frozen=True):
    """`ready` is true when a request would be served; with 503, `problems` say why not."""

    ready: bool
    problems: list[str]


async def _ask_health(call: Call) -> HealthReport:
    """The gate's own word. Raises WorkerLost when there is none within the bound."""
    try:
        async with asyncio.timeout(call.edge.config.health_timeout_s):
            result = await call.edge.gate.call(None, Health())
    except TimeoutError:
        raise WorkerLost("the kernel does not answer") from None
    if not isinstance(result, HealthReport):
        raise ProtocolViolation("the kernel answers something else")
    return result


async def healthz(call: Call) -> None:
    """Did the core just take a step, and the store a write? Says nothing about models."""
    try:
        report = await _ask_health(call)
    except LLMOSError as e:
        report = HealthReport(False, [e.message], live=False)
    if report.live:
        await call.send_json(Liveness("ok"))
    else:
        told = Liveness("failing", report.problems)
        await call.send_json(told, status=503)


async def readyz(call: Call) -> None:
    """Would a request be served now?"""
    try:
        report = await _ask_health(call)
    except LLMOSError as e:
        report = HealthReport(False, [e.message])
    told = Readiness(report.ready, report.problems)
    await call.send_json(told, status=200 if report.ready else 503)


async def metrics(call: Call) -> None:
    """Prometheus text. It tells of every tenant, so it takes the right to read the system."""
    call.edge.authorizer.authorize(call.principal, Action.READ_SYSTEM, Resource("system"))
    body, content_type = call.edge.render_metrics()
    await call.send_bytes(200, body, content_type.encode())


ROUTES = [
    RouteSpec(
        "GET",
        "/healthz",
        healthz,
        "Does the kernel answer?",
        needs_key=False,
        answer=Liveness,
        also={503: "It does not, or cannot write: `problems` say why."},
    ),
    RouteSpec(
        "GET",
        "/readyz",
        readyz,
        "Would a request be served?",
        needs_key=False,
        answer=Readiness,
        also={503: "It would not: `problems` say why."},
    ),
    RouteSpec("GET", "/metrics", metrics, "Metrics for Prometheus.", answer_types=("text/plain",)),
]
