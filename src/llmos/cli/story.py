"""`logs why`: what was decided about a process, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from llmos.abi.logs import MAX_LINES
from llmos.cli.options import Json, LogLevel, ProcessID

if TYPE_CHECKING:
    from llmos.abi.spent import Spent
    from llmos.abi.syscall import Decided, ProcessInfo, ProcessStory
    from llmos.sdk import Client

NS = 1_000_000_000


def why(process_id: ProcessID, json: Json = False) -> None:
    """Explain a process: each decision about it, with its reason.

    Times count from its arrival. At the end stands what was predicted beside what it took, and what
    it has used of the machine.
    """
    from llmos.cli.find import find_process
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.sdk.wire import to_wire

    with connect() as client:
        story = client.processes.show(find_process(client, process_id))
    if json:
        made = to_wire(story)
        for decided in made["decisions"]:
            decided["after_s"] = (decided["at_ns"] - story.info.created_ns) / NS
        emit_json(made)
        return
    for line in timeline(story):
        emit(line)


def timeline(story: ProcessStory) -> Iterator[str]:
    """The lines of `why`."""
    from llmos.cli.text import one_line

    info = story.info
    yield one_line(f"{info.process_id}  {info.kind}  {info.state}")
    yield one_line(
        f"{info.model} for {info.principal} of {info.tenant_id}, "
        f"class {info.service_class.name.lower()}, nice {info.nice}"
    )
    cached = f" ({info.cached_tokens} of them cached)" if info.cached_tokens else ""
    yield f"{info.prompt_tokens} tokens of prompt{cached}, {info.completion_tokens} of answer"
    if info.driver:
        yield one_line(f"served by {info.driver}")
    for decided in story.decisions:
        after_s = (decided.at_ns - info.created_ns) / NS
        yield one_line(f"{after_s:+10.3f} s  {decided.state:<10}  {decided.reason}")
    yield _sums(info)
    if info.spent is not None:
        yield used(info.spent)


def used(spent: Spent) -> str:
    """What it cost the machine, in one line; where the energy is from stands beside it."""
    from llmos.cli.text import size

    made = f"used {spent.cpu_s:.3f} s of processors, {spent.engine_s:.3f} s of its engine"
    made += f", {size(spent.memory_bytes)}"
    if spent.joules is not None:
        made += f", {spent.joules:.3g} J ({spent.basis})"
    return made


def _sums(info: ProcessInfo) -> str:
    import time

    end_ns = info.ended_ns or time.time_ns()
    so_far = "" if info.ended_ns else " so far"
    if info.started_ns is None:
        eta = "" if info.eta_s is None else f", a row expected in {info.eta_s:.1f} s"
        return f"waited {(end_ns - info.created_ns) / NS:.3f} s{so_far}, never had a row{eta}"
    waited_s = (info.started_ns - info.created_ns) / NS
    lasted_s = (end_ns - info.started_ns) / NS
    return f"waited {waited_s:.3f} s for a row, then took {lasted_s:.3f} s{so_far}"


def logs(
    process_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Of a process; without it, the server's own log."),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the process has ended, or for ever.")
    ] = False,
    lines: Annotated[
        int,
        typer.Option(
            "--lines",
            "-n",
            min=0,
            max=MAX_LINES,
            help="How many last lines of the server's log.",
        ),
    ] = 20,
    level: Annotated[
        LogLevel, typer.Option(help="Of the server's log, only what is as severe.")
    ] = LogLevel.DEBUG,
    json: Json = False,
) -> None:
    """Print the server's log, or the decisions about one process.

    The server's log is a file of its home: it is there also when no server runs. Of a server on
    another machine (LLMOS_URL) it is asked for, which an administrator's key may.
    """
    if process_id is None:
        _server_logs(lines, level, follow=follow, json=json)
        return
    from llmos.cli.find import find_process
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.sdk.wire import to_wire

    with connect() as client:
        name = find_process(client, process_id)
        for decided in _decisions(client, name, follow=follow):
            if json:
                emit_json({"process_id": name, **to_wire(decided)})
            else:
                emit(log_line(name, decided))


def _server_logs(lines: int, level: LogLevel, *, follow: bool, json: bool) -> None:
    from llmos.cli import serverlog
    from llmos.cli.output import emit, emit_json

    for entry in serverlog.entries(lines, level.value, follow=follow):
        if json:
            emit_json(entry)
        else:
            emit(serverlog.text_of(entry))


def log_line(process_id: str, decided: Decided) -> str:
    """UTC, whose, the state, the reason."""
    from datetime import UTC, datetime

    from llmos.cli.text import one_line

    at = datetime.fromtimestamp(decided.at_ns / NS, UTC).isoformat(timespec="milliseconds")
    at = at.removesuffix("+00:00")
    return one_line(f"{at}Z  {process_id}  {decided.state:<10}  {decided.reason}")


def _decisions(client: Client, process_id: str, *, follow: bool) -> Iterator[Decided]:
    from llmos.cli.config import LIMITS

    story, last = client.processes.show(process_id), None
    while True:
        for decided in fresh(story.decisions, last):
            yield decided
            last = decided
        if not follow or story.info.ended_ns is not None:
            return
        story = client.processes.wait(process_id, LIMITS.follow_interval_s)


def fresh(decisions: list[Decided], last: Decided | None) -> list[Decided]:
    """Those after `last`. A long story loses decisions from its middle, so indices tell nothing."""
    if last is None:
        return decisions
    if last in decisions:
        return decisions[len(decisions) - decisions[::-1].index(last) :]
    return [decided for decided in decisions if decided.at_ns > last.at_ns]
