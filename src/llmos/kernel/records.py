"""What is recorded of an inference once it has ended."""

from __future__ import annotations

import logging

from llmos.abi.events import Failed, Finished, Terminal
from llmos.abi.requests import RequestRow
from llmos.kernel.process import Process
from llmos.telemetry.logs import REQUESTS

log = logging.getLogger(REQUESTS)


def log_end(process: Process, event: Terminal) -> None:
    """A line about a request that has ended: whose, how long, what it came to. Never its text."""
    created_ns, ended_ns = process.created_ns, process.ended_ns or process.created_ns
    extra = {
        "request_id": process.request_id,
        "model": process.version.ref,
        "route": process.body.route,
        "tenant_id": process.principal.tenant_id,
        "class": process.service_class.name.lower(),
        "outcome": str(process.phase),
        "prompt_tokens": event.usage.prompt_tokens,
        "completion_tokens": event.usage.completion_tokens,
        "lasted_s": round((ended_ns - created_ns) / 1e9, 6),
    }
    if process.started_mono:
        extra["queued_s"] = round((process.started_mono - process.created_mono) / 1e9, 6)
    if process.first_token_mono:
        extra["ttft_s"] = round((process.first_token_mono - process.created_mono) / 1e9, 6)
    if process.parent_id is not None:
        extra["parent_id"] = process.parent_id
    if process.trace is not None:
        extra["trace_id"] = process.trace.context.trace_id
    if isinstance(event, Failed):
        extra["error"] = event.error.code
    log.info("a request %s", process.phase, extra=extra)


def row_of(process: Process, event: Terminal, epoch: int) -> RequestRow:
    """The row of a process that `event` has ended. Tokens made are counted also where the engine
    could not tell."""
    usage, prepared = event.usage, process.prepared
    first_ns = None
    if process.first_token_mono:
        first_ns = process.created_ns + process.first_token_mono - process.created_mono
    outcome, error_code = "cancelled", None
    if isinstance(event, Finished):
        outcome = str(event.reason)
    elif isinstance(event, Failed):
        outcome, error_code = "failed", event.error.code
    return RequestRow(
        request_id=process.request_id,
        tenant_id=process.principal.tenant_id,
        principal_id=process.principal.principal_id,
        model=process.version.ref,
        route=process.body.route,
        service_class=int(process.service_class),
        prompt_tokens=usage.prompt_tokens or (prepared.num_tokens if prepared else 0),
        completion_tokens=usage.completion_tokens or process.num_tokens,
        cached_tokens=usage.cached_tokens,
        created_ns=process.created_ns,
        ended_ns=process.ended_ns or process.created_ns,
        outcome=outcome,
        epoch=epoch,
        started_ns=process.started_ns,
        first_token_ns=first_ns,
        error_code=error_code,
        cost=usage.cost,
    )
