"""`backup restore`: the home as a whole, copied out of a running server and back without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.options import Json

if TYPE_CHECKING:
    from llmos.storage.restore import Restored


def backup(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder that does not exist yet, or is empty.")
    ],
    json: Json = False,
) -> None:
    """Copy the home of the running server, whole or not at all.

    The server goes on meanwhile. The admin token and what workers have in their scratch folders
    are left out. Ends with 1 when something was lost before, and so is not in the copy.
    """
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.progress import spinner
    from llmos.cli.session import connect
    from llmos.cli.text import size

    target = path.expanduser().absolute()
    with connect() as client, spinner(f"backing up to {target}"):
        report = client.home.back_up(target)
    if json:
        emit_json(report)
    else:
        for remark in report.notes:
            note(f"not included: {remark}")
        for digest in report.missing:
            note(f"lost already, so not included: {digest}")
        about = f"{report.num_files} files, {size(report.size_bytes)}, in {report.took_s:.1f} s"
        emit(f"{report.path}: {about}")
    if report.missing:
        raise typer.Exit(FAILED)


def restore(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="What `llmos backup` made.")],
    *,
    home: Annotated[
        Path | None, typer.Option(help="Where to; LLMOS_HOME or ~/.llmos by default.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move a home that is there aside; nothing is deleted.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a home from a backup.

    Needs no server, and none may run there. Every byte is verified before anything is written.
    """
    import llmos.storage.restore
    from llmos.cli.output import emit_json
    from llmos.cli.progress import pull_bar
    from llmos.sdk.locate import find_home

    with pull_bar() as show:
        from llmos.abi.registry import PullProgress

        done = llmos.storage.restore.restore(
            path,
            find_home(home),
            force=force,
            progress=lambda phase, done, total: show(PullProgress(phase, "", done, total)),
        )
    if json:
        emit_json(_as_json(done))
    else:
        _tell(done)


def _as_json(done: Restored) -> dict[str, object]:
    manifest = done.manifest
    return {
        "home": done.home,
        "aside": done.aside,
        "num_files": done.num_files,
        "size_bytes": done.size_bytes,
        "took_s": done.took_s,
        "epoch": done.epoch,
        "version": manifest.version,
        "created_ns": manifest.created_ns,
        "counts": manifest.counts,
        "missing": manifest.missing,
        "notes": manifest.notes,
    }


def _tell(done: Restored) -> None:
    from llmos.cli.output import emit, note
    from llmos.cli.text import size

    for remark in done.manifest.notes:
        note(f"not included: {remark}")
    for digest in done.manifest.missing:
        note(f"lost before the backup: {digest}")
    if done.aside is not None:
        note(f"the home that was there is now {done.aside}")
    counts = ", ".join(f"{number} {name}" for name, number in sorted(done.manifest.counts.items()))
    emit(f"{done.home}: {done.num_files} files, {size(done.size_bytes)}; {counts}")
    note("it has an admin token of its own, which `llmos serve` prints")
