"""What is recorded of an inference once it has ended."""

from __future__ import annotations

from msgspec import UNSET

from llmos.abi.events import Failed, Finished, Terminal
from llmos.abi.requests import RequestRow
from llmos.kernel.process import Process
from llmos.telemetry.logs import REQUESTS, RequestLine, stamp


def line_of(process: Process, row: RequestRow) -> RequestLine:
    """Of the log: whose it was, how long it took, what it came to. Never its text."""
    started_mono, first_mono = process.started_mono, process.first_token_mono
    trace, error_code = process.trace, row.error_code
    return RequestLine(
        stamp(row.ended_ns),
        "info",
        REQUESTS,
        f"a request {process.phase}",
        row.request_id,
        row.model,
        row.route,
        row.tenant_id,
        process.service_class.name.lower(),
        process.phase,
        row.prompt_tokens,
        row.completion_tokens,
        _lasted_s(row.created_ns, row.ended_ns),
        _lasted_s(process.created_mono, started_mono) if started_mono else UNSET,
        _lasted_s(process.created_mono, first_mono) if first_mono else UNSET,
        UNSET if process.parent_id is None else process.parent_id,
        UNSET if trace is None else trace.context.trace_id,
        UNSET if error_code is None else error_code,
    )


def _lasted_s(from_ns: int, to_ns: int) -> float:
    """To the microsecond."""
    return (to_ns - from_ns) // 1000 / 1e6


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
