"""What is taken down of a traced request when it has ended: nothing is timed twice."""

from __future__ import annotations

from llmos.abi.events import Failed, Terminal
from llmos.abi.requests import RequestRow
from llmos.kernel.counting import error_of, operation_of
from llmos.kernel.process import Process
from llmos.telemetry.traced import Drawing, RequestRecord
from llmos.telemetry.tracer import Trace


def record_of(process: Process, trace: Trace, row: RequestRow, event: Terminal) -> RequestRecord:
    """Refers to what the process goes on with: to be encoded at once."""
    body, sampling = process.body, process.body.sampling
    return RequestRecord(
        trace.context,
        row,
        process.created_mono,
        trace.prepared_ns,
        trace.num_steps,
        trace.steps,
        process.history,
        operation_of(process),
        body.model,
        process.version.driver,
        process.service_class.name.lower(),
        process.nice,
        process.phase,
        process.num_preemptions,
        process.num_suspensions,
        Drawing(
            sampling.temperature,
            sampling.top_p,
            sampling.frequency_penalty,
            sampling.presence_penalty,
            sampling.top_k,
            sampling.seed,
            sampling.max_tokens,
        ),
        process.parent_id,
        error_of(event),
        f"{event.error.code}: {event.error.message}" if isinstance(event, Failed) else "",
    )
