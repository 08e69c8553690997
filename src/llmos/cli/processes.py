"""`ps nice kill wait`: what runs on a server, and what holds its memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.options import ClassName, Json, ProcessID

if TYPE_CHECKING:
    from llmos.abi.syscall import ProcessInfo, ProcessStory
    from llmos.sdk import Client


def ps(
    *,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Those that have ended as well.")
    ] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only these: waiting, running, suspended, failed ...; repeatable."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant's id.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only those of this key.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", "-m", help="Show who holds the memory instead.")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", "-w", help="With --memory: every column, nothing cut off.")
    ] = False,
    json: Json = False,
) -> None:
    """List the live processes: requests and jobs.

    Each with the reason for its state; with --memory, what holds the server's memory.
    """
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect

    if memory:
        _show_memory(wide=wide, json=json)
        return
    with connect() as client:
        states = state or (() if every else "live")
        processes = client.processes.list(state=states, model=model, tenant=tenant, mine=mine)
    if json:
        emit_json({"processes": processes})
    else:
        titles = (
            *("PROCESS", "KIND", "STATE", "CLASS", "NICE", "MODEL", "TENANT", "BY"),
            *("PROMPT", "GENERATED", "AGE", "ETA", "REASON"),
        )
        empty = "no such process" if every or state else "no live process; --all shows ended ones"
        emit_table(titles, [_process_row(p) for p in processes], empty)


def _show_memory(*, wide: bool, json: bool) -> None:
    from llmos.cli.memory import blocks
    from llmos.cli.output import emit, emit_json, terminal_width
    from llmos.cli.session import connect
    from llmos.sdk.wire import to_wire

    with connect() as client:
        memory, replicas = client.memory(), client.replicas()
    if json:
        emit_json({"memory": to_wire(memory), "replicas": replicas})
    else:
        emit("\n\n".join(blocks(memory, replicas, terminal_width(), wide=wide)))


def _process_row(p: ProcessInfo) -> tuple[str, ...]:
    from llmos.cli.text import age, seconds

    return (
        p.process_id,
        p.kind,
        p.state,
        p.service_class.name.lower(),
        str(p.nice),
        p.model,
        p.tenant_id,
        p.principal,
        str(p.prompt_tokens),
        str(p.completion_tokens),
        age(p.created_ns),
        seconds(p.eta_s),
        p.reason,
    )


def nice(
    process_id: ProcessID,
    value: Annotated[
        int | None, typer.Argument(metavar="N", help="-20 (first) to 19 (last).")
    ] = None,
    service_class: Annotated[
        ClassName | None, typer.Option("--class", help="Another service class.")
    ] = None,
    json: Json = False,
) -> None:
    """Change how urgent a live process is.

    One that waits moves in its queue at once, one that runs keeps its row until its slice is over.
    """
    from llmos.cli.find import find_process
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    if value is None and service_class is None:
        raise typer.BadParameter("give N, --class, or both")
    wanted = service_class.value if service_class is not None else None
    with connect() as client:
        name = find_process(client, process_id, live=True)
        done = client.processes.nice(name, value, service_class=wanted)
    if json:
        emit_json({"done": done.what})
    else:
        emit(done.what)


def kill(
    process_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="As `llmos ps` shows them, or a part.")
    ],
    json: Json = False,
) -> None:
    """End processes; whoever reads their streams is told.

    Nothing is ended when one of the ids is not known or could be several.
    """
    from llmos.cli.find import find_process
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        names = [find_process(client, given, live=True) for given in process_ids]
        for name in dict.fromkeys(names):
            done = client.processes.kill(name)
            if json:
                emit_json({"process_id": name, "done": done.what})
            else:
                emit(f"killed {name}")


def suspend(process_id: ProcessID, json: Json = False) -> None:
    """Take a request or a job off the machine until it is resumed.

    A request by an exact snapshot of its state, a job by its checkpoint where its program makes
    them, else frozen.
    """
    _switch(process_id, "suspend", json)


def resume(process_id: ProcessID, json: Json = False) -> None:
    """Let a suspended request or job go on from where it was."""
    _switch(process_id, "resume", json)


def _switch(process_id: str, verb: str, json: bool) -> None:
    from llmos.cli.find import find_process
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        done = getattr(client.processes, verb)(find_process(client, process_id))
    if json:
        emit_json({"done": done.what})
    else:
        emit(done.what)


def wait(
    process_id: ProcessID,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Give up after so many seconds.")
    ] = None,
    json: Json = False,
) -> None:
    """Wait until a process has ended.

    The exit code is 0 when it finished, 1 when it failed or was ended, 124 when the time is up.
    """
    from llmos.cli.failure import FAILED, TIMED_OUT
    from llmos.cli.find import find_process
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        story = _wait(client, find_process(client, process_id), timeout)
    info = story.info
    if json:
        emit_json(story)
    else:
        emit(f"{info.process_id}  {info.state}: {info.reason}")
    if info.ended_ns is None:
        raise typer.Exit(TIMED_OUT)
    if info.state != "finished":
        raise typer.Exit(FAILED)


def _wait(client: Client, process_id: str, timeout_s: float | None) -> ProcessStory:
    """In steps, so that no proxy takes the silence for an end."""
    from llmos.cli.config import LIMITS

    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = LIMITS.wait_step_s if end_s is None else max(0.0, end_s - time.monotonic())
        story = client.processes.wait(process_id, min(left_s, LIMITS.wait_step_s))
        is_over = end_s is not None and time.monotonic() >= end_s
        if story.info.ended_ns is not None or is_over:
            return story
