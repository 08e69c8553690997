"""`job submit ls show logs cancel retry rm programs`: durable work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmos.cli.options import ClassName, Json, examples

if TYPE_CHECKING:
    from llmos.abi.jobs import JobRecord, JobSpec
    from llmos.abi.syscall_jobs import JobReply
    from llmos.sdk import Client

app = typer.Typer(
    help="Durable work: it survives every restart.", no_args_is_help=True, rich_markup_mode=None
)

JobID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos job ls` shows it, or its beginning or end.")
]
JobIDs = Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs, or parts of their ids.")]
NS = 1_000_000_000


@app.command(
    epilog=examples(
        "llmos job submit batch --file input=requests.jsonl -i endpoint=/v1/chat/completions",
        'llmos job submit drill --inputs \'{"steps": [{"do": "sleep", "seconds": 5}]}\' -f',
        "llmos job submit batch --file input=file_0193a --needs 7f3a9c01 --class default",
    )
)
def submit(
    program: Annotated[str, typer.Argument(help="What runs: see `llmos job programs`.")],
    *,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=VALUE; VALUE is JSON if it can be. Repeatable."),
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="All inputs as one JSON object, or @FILE with it.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", help="NAME=PATH (sent first) or NAME=file_ID. Repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    service_class: Annotated[
        ClassName, typer.Option("--class", help="Service class.")
    ] = ClassName.BATCH,
    nice: Annotated[int, typer.Option(min=-20, max=19, help="-20 (first) to 19 (last).")] = 0,
    needs: Annotated[
        list[str] | None, typer.Option(help="A job that must succeed first. Repeatable.")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="The job it belongs to.")] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Most starts after failures.")] = 3,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds of one attempt.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Begin in so many seconds.")] = None,
    memory_mb: Annotated[
        int, typer.Option(min=0, help="MB it may use; 0: the program's own estimate.")
    ] = 0,
    cron: Annotated[
        str | None, typer.Option(help="Do this by the clock instead: five fields, as in crontab.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of --cron.")] = "UTC",
    key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Sent twice, the job is made once.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show its log until it has ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Submit a job; its id is printed once it is on disk."""
    import time

    from llmos.cli.session import connect

    fields = {
        "program": program,
        "inputs": read_inputs(inputs, given or []),
        "name": name,
        "nice": nice,
        "memory_bytes": memory_mb * 1_000_000,
        "max_attempts": attempts,
        "timeout_s": timeout,
        "start_at_ns": None if delay is None else time.time_ns() + int(delay * NS),
    }
    with connect() as client:
        spec = _spec(
            client,
            fields,
            class_name=service_class.value,
            files=files or [],
            needs=needs or [],
            parent=parent,
        )
        if cron is not None:
            _schedule(client, cron, spec, timezone, as_json=json)
        else:
            _submit(client, spec, key, follow=follow, as_json=json)


def _spec(
    client: Client,
    fields: dict[str, Any],
    *,
    class_name: str,
    files: list[str],
    needs: list[str],
    parent: str | None,
) -> JobSpec:
    """Parts of ids made whole, files sent."""
    from llmos.abi.jobs import JobSpec
    from llmos.abi.principal import ServiceClass
    from llmos.cli.find import find_job

    return JobSpec(
        **fields,
        service_class=ServiceClass[class_name.upper()],
        needs=[find_job(client, one) for one in needs],
        parent_id=None if parent is None else find_job(client, parent),
        files=_send_files(client, files),
    )


def _submit(client: Client, spec: JobSpec, key: str | None, *, follow: bool, as_json: bool) -> None:
    from llmos.cli.joblogs import follow_job
    from llmos.cli.output import emit, emit_json

    reply = client.jobs.submit(spec, idempotency_key=key)
    if follow:
        follow_job(client, reply.job.job_id, 0, as_json=as_json)
    elif as_json:
        emit_json(reply)
    else:
        emit(reply.job.job_id)


def _schedule(client: Client, cron: str, spec: JobSpec, timezone: str, *, as_json: bool) -> None:
    from llmos.cli.output import emit, emit_json

    for made in client.schedules.add(cron, spec, timezone=timezone):
        if as_json:
            emit_json(made)
        else:
            emit(made.schedule_id)


def read_inputs(whole: str | None, pairs: list[str]) -> dict[str, Any]:
    """The object of `--inputs`, with each `NAME=VALUE` laid over it. Raises InvalidRequest."""
    from pathlib import Path

    import msgspec

    from llmos.errors import InvalidRequest

    made: dict[str, Any] = {}
    if whole is not None:
        try:
            text = Path(whole[1:]).read_text("utf-8") if whole.startswith("@") else whole
            made = msgspec.json.decode(text, type=dict[str, Any])
        except OSError as error:
            raise InvalidRequest(f"{whole[1:]}: {error.strerror}", param="--inputs") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"not a JSON object: {error}", param="--inputs") from error
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{pair!r} is not NAME=VALUE", param="--input")
        try:
            made[name] = msgspec.json.decode(value)
        except msgspec.MsgspecError:
            made[name] = value
    return made


def _send_files(client: Client, pairs: list[str]) -> dict[str, str]:
    from pathlib import Path

    from llmos.errors import InvalidRequest

    sent = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InvalidRequest(f"{pair!r} is not NAME=PATH or NAME=file_ID", param="--file")
        is_id = value.startswith("file_") and not Path(value).exists()
        sent[name] = value if is_id else client.files.put(value, purpose="batch").id
    return sent


@app.command(
    epilog=examples("llmos job ls", "llmos job ls --state failed", "llmos job ls --all --json")
)
def ls(
    *,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Those that have ended as well.")
    ] = False,
    state: Annotated[
        list[str] | None, typer.Option(help="Only these: pending, running, dead ...; repeatable.")
    ] = None,
    program: Annotated[str | None, typer.Option(help="Only of this program.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only the children of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most lines.")] = 100,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    from llmos.cli.output import emit_json, emit_table, note
    from llmos.cli.session import connect

    states = state or (() if every else "live")
    with connect() as client:
        page = client.jobs.list(state=states, program=program, parent=parent, limit=limit)
    if json:
        emit_json(page)
        return
    headers = ("JOB", "PROGRAM", "NAME", "STATE", "CLASS", "TRY", "PROGRESS", "AGE", "REASON")
    empty = "no such job" if every or state else "no live job; --all shows ended ones"
    emit_table(headers, [_row(job) for job in page.jobs], empty)
    if page.has_more:
        note(f"and more; --limit shows up to 1000 of them (here {limit})")


def _row(job: JobRecord) -> tuple[str, ...]:
    from llmos.cli.text import age

    return (
        job.job_id,
        job.spec.program,
        job.spec.name,
        job.state,
        job.spec.service_class.name.lower(),
        str(job.attempt),
        progress_text(job),
        age(job.created_ns),
        job.reason,
    )


def progress_text(job: JobRecord) -> str:
    """`40 % of 10000 lines`, `17 steps`, or nothing known."""
    progress = job.progress
    if progress is None or (not progress.total and not progress.done):
        return "-"
    if progress.total > 0:
        part = 100 * progress.done / progress.total
        return f"{part:.0f} % of {progress.total:g} {progress.unit}".rstrip()
    return f"{progress.done:g} {progress.unit}".rstrip()


@app.command(epilog=examples("llmos job show 7f3a9c01", "llmos job show 7f3a9c01 --json"))
def show(job_id: JobID, json: Json = False) -> None:
    """Show everything known of a job."""
    from llmos.cli.find import find_job
    from llmos.cli.joblogs import use_of
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import table

    with connect() as client:
        reply = client.jobs.show(find_job(client, job_id))
        if json:
            emit_json(reply)
        else:
            facts = [*_facts(reply), *use_of(client, reply.job)]
            emit(table(("job", reply.job.job_id), facts))


def _facts(reply: JobReply) -> list[tuple[str, str]]:
    import msgspec

    from llmos.cli.text import age, seconds

    job, spec = reply.job, reply.job.spec

    def js(value: Any) -> str:
        return msgspec.json.encode(value).decode() if value else "-"

    took = None
    if job.started_ns is not None and job.ended_ns is not None:
        took = (job.ended_ns - job.started_ns) / NS
    error = "-" if job.error is None else f"{job.error.code}: {job.error.message}"
    return [
        ("program", spec.program),
        ("name", spec.name or "-"),
        ("state", job.state),
        ("reason", job.reason or "-"),
        ("owner", f"{job.principal.name} of {job.principal.tenant_id}"),
        ("class", f"{spec.service_class.name.lower()}, nice {spec.nice}"),
        ("attempt", f"{job.attempt} of {spec.max_attempts}; {job.num_deaths} worker deaths"),
        ("progress", progress_text(job)),
        ("ends in", seconds(reply.eta_s)),
        ("took", seconds(took)),
        ("submitted", f"{age(job.created_ns)} ago"),
        ("needs", ", ".join(spec.needs) or "-"),
        ("parent", spec.parent_id or "-"),
        ("files", js(spec.files)),
        ("inputs", js(spec.inputs)),
        ("outputs", js(job.outputs)),
        ("error", error),
    ]


@app.command(
    epilog=examples(
        "llmos job logs 7f3a9c01",
        "llmos job logs 7f3a9c01 --follow",
        "llmos job logs 7f3a9c01 --kind metric --json",
    )
)
def logs(
    job_id: JobID,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only these: log, metric, output, progress, state; repeatable."),
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Begin after this event.")] = 0,
    json: Json = False,
) -> None:
    """Print a job's log: what its program said, and what was decided about it."""
    from llmos.cli.find import find_job
    from llmos.cli.joblogs import follow_job, show_event
    from llmos.cli.session import connect

    with connect() as client:
        name = find_job(client, job_id)
        if follow:
            follow_job(client, name, after, kind or [], as_json=json)
            return
        while events := client.jobs.events(name, after=after, kinds=kind or []):
            for event in events:
                show_event(event, as_json=json)
            after = events[-1].number


@app.command(epilog=examples("llmos job cancel 7f3a9c01", "llmos job cancel 7f3a9c01 0193a"))
def cancel(
    job_ids: JobIDs,
    json: Json = False,
) -> None:
    """End jobs and their children; what a running program has done so far is kept."""
    _each(job_ids, "cancel", json)


@app.command(epilog=examples("llmos job retry 7f3a9c01"))
def retry(
    job_ids: JobIDs,
    json: Json = False,
) -> None:
    """Begin jobs again that did not succeed; they go on from their checkpoint."""
    _each(job_ids, "retry", json)


@app.command(epilog=examples("llmos job rm 7f3a9c01"))
def rm(
    job_ids: JobIDs,
    json: Json = False,
) -> None:
    """Forget ended jobs, with their logs and results."""
    _each(job_ids, "remove", json)


def _each(job_ids: list[str], verb: str, json: bool) -> None:
    from llmos.cli.find import find_job
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        names = [find_job(client, given) for given in job_ids]
        for name in dict.fromkeys(names):
            reply: JobReply = getattr(client.jobs, verb)(name)
            if json:
                emit_json(reply)
            else:
                emit(f"{name}  {'forgotten' if verb == 'remove' else reply.job.state}")


@app.command(epilog=examples("llmos job programs", "llmos job programs --json"))
def programs(json: Json = False) -> None:
    """List what jobs can run, and what each takes."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import size

    with connect() as client:
        found = client.jobs.programs()
    if json:
        emit_json({"programs": found})
        return
    for entry in found:
        emit(f"{entry.name}  {entry.about} ({size(entry.memory_bytes)})")
        for name, about in entry.inputs.items():
            emit(f"    {name}: {about}")


@app.command(epilog=examples("llmos job schedules", "llmos job schedules --json"))
def schedules(json: Json = False) -> None:
    """List the jobs that are submitted by the clock."""
    from datetime import UTC, datetime

    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect

    with connect() as client:
        found = client.schedules.list()
    if json:
        emit_json({"schedules": found})
        return
    rows = [
        (
            s.schedule_id,
            s.cron,
            s.timezone,
            s.spec.program,
            datetime.fromtimestamp(s.next_ns / NS, UTC).isoformat(timespec="seconds"),
            s.last_job_id or "-",
        )
        for s in found
    ]
    headers = ("SCHEDULE", "CRON", "ZONE", "PROGRAM", "NEXT", "LAST JOB")
    emit_table(headers, rows, "no schedules; `llmos job submit --cron` makes one")


@app.command(epilog=examples("llmos job unschedule sch_0193a"))
def unschedule(
    schedule_id: Annotated[str, typer.Argument(metavar="ID", help="A schedule's whole id.")],
    json: Json = False,
) -> None:
    """End a schedule; jobs it has made are left alone."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        client.schedules.remove(schedule_id)
    if json:
        emit_json({"removed": schedule_id})
    else:
        emit(f"removed {schedule_id}")
