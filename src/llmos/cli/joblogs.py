"""A job's log on a terminal: event by event, through restarts of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from llmos.abi.jobs import JobEvent, JobRecord
    from llmos.abi.spent import Spent
    from llmos.sdk import Client

NS = 1_000_000_000


def follow_job(
    client: Client, job_id: str, after: int, kinds: list[str] | None = None, *, as_json: bool
) -> None:
    """Its log to its end, through restarts of the server; the exit code is how it ended."""
    from llmos.abi.jobs import JobEvent, JobState
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit_json, note

    job = None
    for item in _items(client, job_id, after, kinds or []):
        if isinstance(item, JobEvent):
            show_event(item, as_json=as_json)
        else:
            job = item.job
    assert job is not None, "a followed log ends with its job"
    if as_json:
        emit_json(job)
    else:
        note(f"{job.job_id}  {job.state}: {job.reason}")
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(FAILED)


def _items(client: Client, job_id: str, after: int, kinds: list[str]) -> Any:
    """As `client.jobs.follow`, coming back while the server restarts."""
    import time

    from llmos.abi.jobs import JobEvent
    from llmos.cli.config import LIMITS
    from llmos.errors import ServerUnreachable, ShuttingDown

    give_up_s = time.monotonic() + LIMITS.reconnect_s
    while True:
        try:
            with client.jobs.follow(job_id, after=after, kinds=kinds) as items:
                for item in items:
                    give_up_s = time.monotonic() + LIMITS.reconnect_s
                    after = item.number if isinstance(item, JobEvent) else after
                    yield item
            return
        except (ServerUnreachable, ShuttingDown):
            if time.monotonic() >= give_up_s:
                raise
            time.sleep(LIMITS.reconnect_interval_s)


def show_event(event: JobEvent, *, as_json: bool) -> None:
    """One event, as a line."""
    from llmos.cli.output import emit, emit_json

    if as_json:
        emit_json(event)
    else:
        emit(event_line(event))


def use_of(client: Client, job: JobRecord) -> list[tuple[str, str]]:
    """Of one that has ended, what all its attempts have used: a line of a table, or none."""
    from llmos.abi.jobs import ENDED, SPENT
    from llmos.errors import OffsetLost

    if job.state not in ENDED:
        return []
    try:
        events = client.jobs.events(job.job_id, kinds=[SPENT])
    except OffsetLost:  # the beginning of a very long log is gone
        return []
    attempts = [spent for event in events if (spent := _spent(event)) is not None]
    return [("used", _sum(attempts))] if attempts else []


def _spent(event: JobEvent) -> Spent | None:
    """None of what a program says under the kernel's word."""
    import msgspec

    from llmos.abi.spent import Spent

    try:
        return msgspec.convert(event.value, Spent)
    except msgspec.ValidationError:
        return None


def _sum(attempts: list[Spent]) -> str:
    from llmos.abi.spent import Spent
    from llmos.cli.story import used

    told = [spent.joules for spent in attempts if spent.joules is not None]
    whole = Spent(
        cpu_s=sum(spent.cpu_s for spent in attempts),
        engine_s=sum(spent.engine_s for spent in attempts),
        memory_bytes=max(spent.memory_bytes for spent in attempts),
        joules=sum(told) if told else None,
        basis=attempts[-1].basis,
    )
    return used(whole).removeprefix("used ")


def event_line(event: JobEvent) -> str:
    """UTC, the kind, what it says; a plain log line as its program wrote it."""
    from datetime import UTC, datetime

    import msgspec

    from llmos.cli.text import one_line

    at = datetime.fromtimestamp(event.at_ns / NS, UTC).isoformat(timespec="milliseconds")
    value = event.value
    text = value.get("text") or value.get("message") or value.get("reason")
    said = text if isinstance(text, str) else msgspec.json.encode(value).decode()
    if event.kind == "state" and "state" in value:
        said = f"{value['state']}: {said}"
    return one_line(f"{at.removesuffix('+00:00')}Z  {event.kind:<8}  {said}")
