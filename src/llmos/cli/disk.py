"""`disk gc`: what uses the home's disk, and freeing what nobody needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.cli.options import Json

if TYPE_CHECKING:
    from llmos.abi.home import DiskReport


def disk(json: Json = False) -> None:
    """Show what uses the home's disk."""
    from llmos.cli.output import emit_json
    from llmos.cli.session import connect

    with connect() as client:
        report = client.home.disk()
    if json:
        emit_json(report)
    else:
        _tell(report)


def gc(json: Json = False) -> None:
    """Delete the bytes that nothing refers to any more.

    What a model, a file, a checkpoint or a running job refers to stays. The server does so by
    itself now and then.
    """
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import size

    with connect() as client:
        report = client.home.collect()
    if json:
        emit_json(report)
        return
    emit(f"freed {size(report.freed_bytes)}; {size(report.free_bytes)} are free")
    _warn(report)


def _tell(report: DiskReport) -> None:
    from llmos.cli.output import emit_table
    from llmos.cli.text import size

    uses = [(name, report.by_use[name]) for name in report.by_use]
    rows = [
        *uses,
        ("unused", report.unused_bytes),
        ("suspended requests", report.snapshot_bytes),
        ("database", report.database_bytes),
        ("free", report.free_bytes),
        ("  of these never used", report.floor_bytes),
        ("the whole disk", report.total_bytes),
    ]
    emit_table(("WHAT", "SIZE"), [(name, size(number)) for name, number in rows], "nothing")
    _warn(report)


def _warn(report: DiskReport) -> None:
    from llmos.cli.output import note

    if report.free_bytes < report.floor_bytes:
        note("nothing new is taken in: less is free than must stay so (storage.min_free_bytes)")
    if report.num_missing:
        note(f"{report.num_missing} blobs are referred to and not there, {report.missing[0]} first")
