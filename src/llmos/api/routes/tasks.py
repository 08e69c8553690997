"""/os/v1/tasks: declared tasks. A task is a job of the program `task` by another name."""

from __future__ import annotations

import time

from llmos.abi.jobs import JobFilter, JobRecord
from llmos.abi.syscall import ListModels, Model, ModelList, ShowModel
from llmos.abi.syscall_jobs import (
    CancelJob,
    FileReply,
    JobList,
    JobReply,
    ListJobs,
    OpenedFile,
    OpenFile,
    ShowFile,
    ShowJob,
    SubmitJob,
)
from llmos.abi.tasks import TASK
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.idempotency import IDEMPOTENCY_KEY, idempotency_of
from llmos.api.parameters import Text
from llmos.api.query import Query
from llmos.api.routes.files import RANGES, send_file
from llmos.api.routes.jobs import AFTER, LIMIT, STATE, STATES
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.errors import Conflict, ModelNotFound, NotFound, QuotaExceeded
from llmos.library.choose import choose, work_of, works_of
from llmos.shapes.inputs import read_nested
from llmos.shapes.names import job_of
from llmos.shapes.tasks import AUTO, Chosen, TaskBody

FORMAT = Text("format", "One that the task was told to make, `rows` or `errors`; absent: its first")
RESULT_QUERY = (FORMAT,)
ALWAYS = frozenset({"rows", "errors"})
"""Results of every task; one without a line has no file."""
LIST_QUERY = (STATE, AFTER, LIMIT)


async def create_task(call: Call) -> JobReply:
    """Answered once it is on disk; what is wrong inside the input is the task's own error."""
    body = await read_json(call)
    read = read_nested(TaskBody, body)
    read.check_input()
    filename = ""
    if read.input.file is not None:
        filename = (await ask(call, ShowFile(read.input.file), FileReply)).file.filename
    chosen = await _choose(call, read)
    spec = read.to_spec(chosen, filename, time.time_ns())
    return await ask(call, SubmitJob(spec, idempotency_of(call, body)), JobReply)


async def _choose(call: Call, task: TaskBody) -> Chosen:
    """Raises ModelNotFound, InvalidRequest for a model that cannot do it."""
    works = works_of(task.kind, has_labels=bool(task.labels), has_prompt=task.needs_prompting)
    if task.model == AUTO:
        models = (await ask(call, ListModels(), ModelList)).models
        version, work, reason = choose(models, task.kind, works, task.language)
    else:
        version = (await ask(call, ShowModel(task.model), Model)).model
        work, reason = work_of(version, works, task.kind), ""
    return Chosen(version.ref, work, version.has_chat_template, reason)


async def list_tasks(call: Call) -> JobList:
    """Newest first."""
    query = Query(call, LIST_QUERY)
    named = query[STATE]
    after = query[AFTER]
    wanted = JobFilter(
        programs=[TASK],
        states=sorted(frozenset().union(*(STATES[name] for name in named))),
        after=None if after is None else job_of(after),
        limit=query[LIMIT],
    )
    return await ask(call, ListJobs(wanted), JobList)


async def show_task(call: Call) -> JobReply:
    """One task, with when it may end."""
    return await _task_of(call)


async def cancel_task(call: Call) -> JobReply:
    """What is done already stays."""
    job = (await _task_of(call)).job
    return await ask(call, CancelJob(job.job_id), JobReply)


async def task_result(call: Call) -> None:
    """A file of results, in a `format` that the task was told to make, or `rows`, `errors`."""
    query = Query(call, RESULT_QUERY)
    job = (await _task_of(call)).job
    files = (job.outputs or {}).get("files")
    if not isinstance(files, dict):
        raise Conflict(f"the task is {job.state}: it has no results yet", param="task_id")
    wanted = query[FORMAT]
    if wanted in ALWAYS and not files.get(wanted):
        await call.send_bytes(200, b"", b"application/jsonl")
        return
    file_id = _file_of(job, wanted, files)
    await send_file(call, await ask(call, OpenFile(file_id), OpenedFile))


def _file_of(job: JobRecord, wanted: str | None, files: dict[str, str | None]) -> str:
    """Raises NotFound naming what there is."""
    made = {stream.removeprefix("raw:"): file_id for stream, file_id in files.items() if file_id}
    asked = job.spec.inputs.get(TASK, {}).get("outputs") or ["jsonl"]
    name = wanted or str(asked[0])
    if name not in made:
        there = ", ".join(made) or "none"
        raise NotFound(f"the task has no results as {name[:32]!r}; it has {there}", param="format")
    return str(made[name])


async def _task_of(call: Call) -> JobReply:
    """No other kind of job. Raises NotFound."""
    name = ref_of(call, "task_id")
    reply = await ask(call, ShowJob(job_of(name)), JobReply)
    if reply.job.spec.program != TASK:
        raise NotFound(f"No such task: {name[:64]}.", param="task_id")
    return reply


_ONE = "/os/v1/tasks/{task_id}"

ROUTES = [
    RouteSpec(
        "POST",
        "/os/v1/tasks",
        create_task,
        "Do one thing with many inputs.",
        body=TaskBody,
        headers=(IDEMPOTENCY_KEY,),
        raises=(NotFound, ModelNotFound, QuotaExceeded),
    ),
    RouteSpec(
        "GET",
        "/os/v1/tasks",
        list_tasks,
        "Tasks, newest first.",
        query=LIST_QUERY,
        raises=(NotFound,),
    ),
    RouteSpec(
        "GET",
        _ONE + "/result",
        task_result,
        "Results, as a file.",
        answer_types=("application/octet-stream", "application/jsonl"),
        query=RESULT_QUERY,
        headers=RANGES,
        raises=(Conflict,),
    ),
    RouteSpec(
        "POST", _ONE + "/cancel", cancel_task, "End a task; what is done stays.", raises=(Conflict,)
    ),
    RouteSpec("GET", _ONE, show_task, "One task."),
]
