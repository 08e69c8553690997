"""A task from its submission to its files, with a bar on a terminal, through server restarts."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llmos.cli.taskfile import Planned, send_input

if TYPE_CHECKING:
    from llmos.abi.jobs import JobRecord
    from llmos.abi.syscall_jobs import JobReply
    from llmos.sdk import Client


def run_task(planned: Planned, *, detach: bool, as_json: bool) -> None:
    """Its results go where they were wanted, to stdout if nowhere. Exits with 1 unless it was done
    and at least one input has a result."""
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.session import connect

    with connect() as client:
        reply = client.tasks.create(send_input(client, planned))
        task_id = reply.job.job_id
        if detach:
            emit_json(reply) if as_json else emit(task_id)
            return
        if (reason := reply.job.spec.inputs["task"].get("reason")) and not as_json:
            note(f"{reply.job.spec.inputs['task']['model']}: {reason}")
        try:
            job = wait(client.tasks.show, task_id)
        except KeyboardInterrupt:
            note(f"{task_id} goes on; `llmos task show {task_id[-8:]}` tells how far it is")
            raise
        if job.outputs and job.state == "succeeded":
            save(client, task_id, planned.targets, to_stdout=not as_json)
        report(job, as_json=as_json)


def save(client: Client, task_id: str, targets: dict[str, Path], *, to_stdout: bool) -> None:
    """Each format to its file, whole or not at all; without targets, the first to stdout."""
    if not targets:
        if to_stdout:
            client.tasks.result(task_id, sys.stdout.buffer.write)
            sys.stdout.flush()
        return
    for name, path in targets.items():
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                client.tasks.result(task_id, file.write, name)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def report(job: JobRecord, *, as_json: bool) -> None:
    """What came of it, on stderr, or as JSON on stdout; and the exit code."""
    from llmos.abi.jobs import JobState
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit_json, note

    outputs = job.outputs or {}
    counts = outputs.get("counts") or {}
    if as_json:
        emit_json(job)
    elif job.state is JobState.SUCCEEDED:
        note(_summary(outputs))
        if first := outputs.get("first_error"):
            note(f"row {first['row']}: {first['message']}")
            note(f"hint: `llmos task result {job.job_id[-8:]} --errors` lists what failed")
    else:
        said = job.reason if job.error is None else f"{job.error.message} ({job.error.code})"
        note(f"{job.job_id}  {job.state}: {said}")
        if job.error is not None and (hint := _COLUMN_HINTS.get(str(job.error.param))):
            note(f"hint: {hint}")
    is_done = job.state is JobState.SUCCEEDED and outputs.get("status") == "completed"
    if not is_done or not counts.get("completed"):
        raise typer.Exit(FAILED)


_COLUMN_HINTS = {
    "columns.text": "--column NAME, or `input.column` of a task file, says which one is the text",
    **{
        f"columns.{name}": f"--map {name}=COLUMN, or `input.columns`, says which one that is"
        for name in ("question", "context", "query", "documents")
    },
}


def _summary(outputs: dict[str, object]) -> str:
    from llmos.cli.text import seconds

    counts, took = outputs.get("counts"), outputs.get("seconds")
    assert isinstance(counts, dict)
    parts = [f"{outputs.get('status')}: {counts['completed']} of {counts['total']}"]
    if isinstance(took, float) and took:
        parts.append(f"{seconds(took)}, {counts['total'] / took:.1f} a second")
    errors, cost = outputs.get("errors"), outputs.get("cost")
    if isinstance(errors, dict) and errors:
        told = ", ".join(f"{number} {code}" for code, number in errors.items())
        parts.append(f"failed: {told}")
    if isinstance(cost, float):
        parts.append(f"${cost:.4f}")
    return "; ".join(parts)


def wait(show_job: Callable[[str], JobReply], job_id: str) -> JobRecord:
    """Until it has ended, however often the server is started again meanwhile."""
    from llmos.abi.jobs import ENDED
    from llmos.cli.config import LIMITS
    from llmos.errors import ServerUnreachable, ShuttingDown

    give_up_s = time.monotonic() + LIMITS.reconnect_s
    with _bar() as show:
        while True:
            try:
                reply = show_job(job_id)
            except (ServerUnreachable, ShuttingDown):
                if time.monotonic() >= give_up_s:
                    raise
                time.sleep(LIMITS.reconnect_interval_s)
                continue
            give_up_s = time.monotonic() + LIMITS.reconnect_s
            show(reply)
            if reply.job.state in ENDED:
                return reply.job
            time.sleep(LIMITS.task_interval_s)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[JobReply], None]]:
    """What is done of what there is, what failed, and the time left; on a terminal only."""
    from llmos.cli.progress import stderr_console
    from llmos.cli.text import one_line, seconds

    console = stderr_console()
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("waiting", total=None, left="")

        def show(reply: JobReply) -> None:
            told = reply.job.progress
            if told is None:
                progress.update(bar, description=one_line(f"{reply.job.state}"))
                return
            failed = told.counts.get("failed", 0)
            left = "" if reply.eta_s is None else f"{seconds(reply.eta_s)} left"
            progress.update(
                bar,
                description=one_line(told.what),
                completed=told.done,
                total=told.total or None,
                left=f"{failed} failed  {left}" if failed else left,
            )

        yield show
