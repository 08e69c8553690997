"""`pipeline run show`: declared steps, each a job of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmos.cli.options import Json, examples

if TYPE_CHECKING:
    from llmos.abi.jobs import JobRecord
    from llmos.sdk import Client

app = typer.Typer(
    help="Steps that are jobs: train, evaluate, let pass, promote.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PipelineID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos job ls` shows it, or its beginning or end.")
]


@app.command(
    epilog=examples("llmos pipeline run loop.yaml", "llmos pipeline run loop.yaml --detach")
)
def run(
    file: Annotated[Path, typer.Argument(help="A pipeline's file: YAML, see docs/evaluate.md.")],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for it.")] = False,
    json: Json = False,
) -> None:
    """Run the steps of a file, in the order they need.

    The exit code is 1 unless all was done; a gate that was not passed is told with its reason.
    """
    from llmos.abi.jobs import JobSpec
    from llmos.abi.pipelines import PIPELINE, read_pipeline
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.session import connect
    from llmos.cli.taskfile import read_yaml
    from llmos.cli.taskrun import wait

    given = read_yaml(file, "pipeline")
    spec = read_pipeline(given)
    with connect() as client:
        _send_files(client, given, file.parent)
        job = JobSpec(program=PIPELINE, inputs={PIPELINE: given}, name=spec.name)
        reply = client.jobs.submit(job)
        job_id = reply.job.job_id
        if detach:
            emit_json(reply) if json else emit(job_id)
            return
        try:
            ended = wait(client.jobs.show, job_id)
        except KeyboardInterrupt:
            note(f"{job_id} goes on; `llmos pipeline show {job_id[-8:]}` tells how far it is")
            raise
        _report(client, ended, as_json=json)


def _send_files(client: Client, given: dict[str, Any], folder: Path) -> None:
    """What a step names as a path of this machine is sent, once, and named by its id."""
    sent: dict[str, str] = {}
    for step in given["steps"].values():
        for name, path in (step.get("files") or {}).items():
            if path.startswith(("file_", "file-", "${")):
                continue
            if path not in sent:
                full = folder / Path(path).expanduser()
                sent[path] = client.files.put(full, purpose="user_data").id
            step["files"][name] = sent[path]


@app.command(epilog=examples("llmos pipeline show 7f3a9c01", "llmos pipeline show 7f3a9c01 --json"))
def show(job_id: PipelineID, json: Json = False) -> None:
    """Show the steps of a pipeline, and why each is as it is."""
    from llmos.cli.find import find_job
    from llmos.cli.session import connect

    with connect() as client:
        job = client.jobs.show(find_job(client, job_id)).job
        _report(client, job, as_json=json, exits=False)


def _report(client: Client, job: JobRecord, *, as_json: bool, exits: bool = True) -> None:
    from llmos.abi.jobs import JobState
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit_json, emit_table, note

    outputs = job.outputs or {}
    if as_json:
        emit_json(job)
    else:
        rows = [
            (name, step["state"], step["job_id"][-8:] or "-", step["reason"] or "-")
            for name, step in (outputs.get("steps") or _told(client, job)).items()
        ]
        emit_table(("STEP", "STATE", "JOB", "WHY"), rows, "no step has begun")
        if job.error is not None:
            note(f"{job.job_id}  {job.state}: {job.error.message} ({job.error.code})")
    is_done = job.state is JobState.SUCCEEDED and outputs.get("status") == "completed"
    if exits and not is_done:
        raise typer.Exit(FAILED)


def _told(client: Client, job: JobRecord) -> dict[str, dict[str, str]]:
    """Of one that goes on, or has failed: what its log says."""
    from llmos.abi.pipelines import PIPELINE

    names = (job.spec.inputs.get(PIPELINE) or {}).get("steps") or {}
    steps = {name: {"state": "waits", "job_id": "", "reason": ""} for name in names}
    for event in client.jobs.events(job.job_id, kinds=["step"]):
        steps.setdefault(event.value["step"], {}).update(
            {name: event.value.get(name, "") for name in ("state", "job_id", "reason")}
        )
    return steps
