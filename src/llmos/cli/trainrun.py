"""A training run from its submission to its model, with a bar on a terminal, through restarts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from llmos.cli.trainfile import Planned, packed

if TYPE_CHECKING:
    from llmos.abi.jobs import JobEvent, JobRecord
    from llmos.abi.syscall_jobs import JobReply
    from llmos.sdk import Client

KINDS = ("metric", "output")
LOSS_PERIOD_S = 2.0
"""Losses are told no oftener: all of them are in the job's log."""


def run_training(planned: Planned, class_name: str, *, detach: bool, as_json: bool) -> None:
    """Send the data, submit the job, follow it. Exits with 1 unless a model came of it."""
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.session import connect

    with connect() as client:
        reply = client.jobs.submit(_spec(client, planned, class_name))
        job_id = reply.job.job_id
        if detach:
            emit_json(reply) if as_json else emit(job_id)
            return
        try:
            job = _follow(client, job_id, as_json=as_json)
        except KeyboardInterrupt:
            note(f"{job_id} goes on; `llmos runs show {job_id[-8:]}` tells how far it is")
            raise
    report(job, as_json=as_json)


def _spec(client: Client, planned: Planned, class_name: str) -> Any:
    from llmos.abi.jobs import JobSpec
    from llmos.abi.principal import ServiceClass

    files = {}
    recipe = dict(planned.recipe)
    data = dict(recipe.get("data") or {})
    for split, source in planned.sources.items():
        with packed(source) as path:
            files[split] = client.files.put(path, purpose="batch").id
            data[split] = path.name
    base = recipe.get("base")
    return JobSpec(
        program="train",
        inputs={"recipe": recipe | {"data": data}},
        name=str(recipe["name"]),
        files=files,
        models={"base": base} if base else {},
        service_class=ServiceClass[class_name.upper()],
    )


def report(job: JobRecord, *, as_json: bool) -> None:
    """What came of it, and the exit code."""
    from llmos.abi.jobs import JobState
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit, emit_json, note

    outputs = job.outputs or {}
    if as_json:
        emit_json(job)
    elif job.state is JobState.SUCCEEDED and outputs.get("status") == "completed":
        for split, scores in outputs["metrics"].items():
            emit(f"{split:<10}  {scores_text(scores)}")
        speed = f"{outputs['tokens_per_s']:,.0f} tokens/s"
        note(f"{outputs['steps']} steps, {outputs['seconds']:.1f} s, {speed}")
        emit(str(outputs.get("model", "not registered")))
    else:
        said = job.reason if job.error is None else f"{job.error.message} ({job.error.code})"
        note(f"{job.job_id}  {job.state}: {said}")
    if job.state is not JobState.SUCCEEDED or outputs.get("status") != "completed":
        raise typer.Exit(FAILED)


def scores_text(scores: Mapping[str, Any]) -> str:
    """`loss 0.4312  accuracy 0.8110`."""
    told = [
        f"{name} {value:.4f}" for name, value in scores.items() if isinstance(value, int | float)
    ]
    return "  ".join(told)


def _follow(client: Client, job_id: str, *, as_json: bool) -> JobRecord:
    """Until it has ended, however often the server is started again meanwhile."""
    from llmos.abi.jobs import ENDED
    from llmos.cli.config import LIMITS
    from llmos.cli.output import emit_json
    from llmos.errors import ServerUnreachable, ShuttingDown

    give_up_s, after = time.monotonic() + LIMITS.reconnect_s, 0
    told_s = 0.0
    with _bar() as (show, say):
        while True:
            try:
                reply = client.jobs.show(job_id)
                events = client.jobs.events(job_id, after=after, kinds=KINDS)
            except (ServerUnreachable, ShuttingDown):
                if time.monotonic() >= give_up_s:
                    raise
                time.sleep(LIMITS.reconnect_interval_s)
                continue
            give_up_s = time.monotonic() + LIMITS.reconnect_s
            for event in events:
                after = event.number
                if as_json:
                    emit_json(event)
                    continue
                is_loss = event.kind == "metric" and "split" not in event.value
                if is_loss and time.monotonic() - told_s < LOSS_PERIOD_S:
                    continue
                told_s = time.monotonic() if is_loss else told_s
                if line := event_line(event):
                    say(line)
            show(reply)
            if reply.job.state in ENDED and not events:
                return reply.job
            time.sleep(LIMITS.task_interval_s)


def event_line(event: JobEvent) -> str:
    """A measure or an output, for people; empty for what the bar shows anyway."""
    value = dict(event.value)
    step = value.pop("step", 0)
    if event.kind == "output":
        shown = {name: str(said)[:80] for name, said in value.items()}
        return f"    {shown.get('input', '')!r} -> {shown.get('output', '')!r}" + (
            f" (expected {shown['expected']!r})" if "expected" in shown else ""
        )
    split = value.pop("split", None)
    if value.pop("final", False):
        return ""
    if split is None:
        return f"step {step:<7} loss {value.get('loss', 0):.4f}"
    return f"step {step:<7} {split}: {scores_text(value)}"


@contextlib.contextmanager
def _bar() -> Iterator[tuple[Callable[[JobReply], None], Callable[[str], None]]]:
    """Steps, loss, tokens/s, memory and the time left, on a terminal; lines above it, anywhere."""
    from llmos.cli.output import note
    from llmos.cli.progress import stderr_console
    from llmos.cli.text import one_line, seconds, visible

    console = stderr_console()
    if not console.is_terminal:
        yield (lambda _: None), note
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("waiting", total=None, left="")

        def show(reply: JobReply) -> None:
            told = reply.job.progress
            if told is None:
                progress.update(bar, description=one_line(str(reply.job.state)))
                return
            left = "" if reply.eta_s is None else f"{seconds(reply.eta_s)} left"
            progress.update(
                bar,
                description=one_line(told.what),
                completed=told.done,
                total=told.total or None,
                left=left,
            )

        yield show, lambda line: console.print(visible(line), markup=False)
