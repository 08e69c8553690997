"""`ps kill`: what runs on a server, and what holds its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.options import Json

if TYPE_CHECKING:
    from llmos.abi.syscall import ProcessInfo, ReplicaInfo


def ps(
    memory: Annotated[
        bool, typer.Option("--memory", "-m", help="Show replicas and their memory instead.")
    ] = False,
    json: Json = False,
) -> None:
    """List the processes: requests and jobs.

    Each with the reason for its state; with --memory, what holds the server's memory.
    """
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect

    with connect() as client:
        if memory:
            replicas = client.replicas()
        else:
            processes = client.processes.list()
    if json:
        emit_json({"replicas": replicas} if memory else {"processes": processes})
    elif memory:
        headers = (
            *("REPLICA", "MODEL", "STATE", "SLOTS", "RUNNING", "WAITING", "RESERVED", "RESIDENT"),
            *("WEIGHTS", "KV USED", "DEVICE", "DTYPE", "RESTARTS", "AGE", "REASON"),
        )
        emit_table(headers, [_replica_row(r) for r in replicas], "no replica is resident")
    else:
        titles = (
            *("PROCESS", "KIND", "STATE", "MODEL", "TENANT", "BY", "CLASS", "NICE"),
            *("PROMPT", "GENERATED", "AGE", "REASON"),
        )
        emit_table(titles, [_process_row(p) for p in processes], "no processes")


def _process_row(p: ProcessInfo) -> tuple[str, ...]:
    from llmos.cli.text import age

    return (
        p.process_id,
        p.kind,
        p.state,
        p.model,
        p.tenant_id,
        p.principal,
        p.service_class.name.lower(),
        str(p.nice),
        str(p.prompt_tokens),
        str(p.completion_tokens),
        age(p.created_ns),
        p.reason,
    )


def _replica_row(r: ReplicaInfo) -> tuple[str, ...]:
    from llmos.cli.text import age, size

    return (
        r.replica_id,
        r.model,
        r.state,
        str(r.num_slots),
        str(r.num_running),
        str(r.num_waiting),
        size(r.reserved_bytes),
        size(r.memory.rss_bytes if r.memory else None),
        size(r.memory.weights_bytes if r.memory else None),
        size(r.memory.kv_used_bytes if r.memory else None),
        r.device,
        r.dtype,
        str(r.num_restarts),
        age(r.since_ns),
        r.reason,
    )


def kill(
    process_id: Annotated[str, typer.Argument(metavar="ID", help="As `llmos ps` shows it.")],
    json: Json = False,
) -> None:
    """End a process; whoever reads its stream is told."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        done = client.processes.kill(process_id)
    if json:
        emit_json({"done": done.what})
    else:
        emit(f"killed {process_id}")
