"""/v1/batches: OpenAI's batches. A batch is a job of the program `batch` by another name."""

from __future__ import annotations

import time

from llmos.abi.jobs import BATCH, JobFilter, JobRecord
from llmos.abi.syscall_jobs import (
    CancelJob,
    FileReply,
    JobList,
    JobReply,
    ListJobs,
    ShowFile,
    ShowJob,
    SubmitJob,
)
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.idempotency import IDEMPOTENCY_KEY, idempotency_of
from llmos.api.parameters import Count, Text
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, UnsupportedParameter
from llmos.shapes.batches import BatchBody, BatchObject, BatchPage, batch_object
from llmos.shapes.files import page_object
from llmos.shapes.inputs import read_plain
from llmos.shapes.names import BATCH_PREFIX, job_of

AFTER = Text("after", "The last id of the page before")
LIMIT = Count("limit", "At most so many", 20, 100)
LIST_QUERY = (AFTER, LIMIT)


async def create_batch(call: Call) -> None:
    """Answered once it is on disk. What is wrong inside the file is the batch's own error."""
    body = await read_json(call)
    read = read_plain(BatchBody, body)
    spec = read.to_spec(time.time_ns())
    await _check_input(call, read.input_file_id)
    made = await ask(call, SubmitJob(spec, idempotency_of(call, body)), JobReply)
    await call.send_json(batch_object(made.job))


async def _check_input(call: Call, file_id: str) -> None:
    missing = NotFound(f"No such file: {file_id}.", param="input_file_id")
    try:
        file = (await ask(call, ShowFile(file_id), FileReply)).file
    except NotFound:
        raise missing from None
    if file.tenant_id != call.principal.tenant_id:
        raise missing
    if file.purpose != BATCH:
        raise InvalidRequest(
            f"The file's purpose is {file.purpose!r}, not 'batch'.", param="input_file_id"
        )


async def list_batches(call: Call) -> None:
    """The tenant's batches, newest first."""
    query = Query(call, LIST_QUERY)
    after = query[AFTER]
    wanted = JobFilter(
        tenant_id=call.principal.tenant_id,
        programs=[BATCH],
        after=None if after is None else job_of(after, BATCH_PREFIX),
        limit=query[LIMIT],
    )
    found = await ask(call, ListJobs(wanted), JobList)
    await call.send_json(page_object([batch_object(job) for job in found.jobs], found.has_more))


async def show_batch(call: Call) -> None:
    """One batch, as it is now."""
    await call.send_json(batch_object(await _batch_of(call)))


async def cancel_batch(call: Call) -> None:
    """What is done already stays, in its file."""
    job = await _batch_of(call)
    cancelled = await ask(call, CancelJob(job.job_id, "cancelled by its owner"), JobReply)
    await call.send_json(batch_object(cancelled.job))


async def _batch_of(call: Call) -> JobRecord:
    """The tenant's own, and no other kind of job. Raises NotFound."""
    name = ref_of(call, "batch_id")
    missing = NotFound(f"No such batch: {name[:64]}.", param="batch_id")
    try:
        job = (await ask(call, ShowJob(job_of(name, BATCH_PREFIX)), JobReply)).job
    except NotFound:
        raise missing from None
    if job.spec.program != BATCH or job.principal.tenant_id != call.principal.tenant_id:
        raise missing
    return job


_ONE = "/v1/batches/{batch_id}"

ROUTES = [
    RouteSpec(
        "POST",
        "/v1/batches",
        create_batch,
        "Answer a file of requests.",
        body=BatchBody,
        answer=BatchObject,
        headers=(IDEMPOTENCY_KEY,),
        raises=(NotFound, QuotaExceeded, UnsupportedParameter),
    ),
    RouteSpec(
        "GET",
        "/v1/batches",
        list_batches,
        "Batches.",
        answer=BatchPage,
        query=LIST_QUERY,
        raises=(NotFound,),
    ),
    RouteSpec(
        "POST",
        _ONE + "/cancel",
        cancel_batch,
        "End a batch.",
        answer=BatchObject,
        raises=(Conflict,),
    ),
    RouteSpec("GET", _ONE, show_batch, "One batch.", answer=BatchObject),
]
