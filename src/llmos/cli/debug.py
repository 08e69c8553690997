"""`debug bundle doctor`: what somebody needs who shall find out what is wrong here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmos.cli.options import Json, examples

app = typer.Typer(
    help="Find out what is wrong, here or by sending a bundle.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog=examples("llmos debug doctor", "llmos debug doctor --json"))
def doctor(json: Json = False) -> None:
    """Check the home and the machine; works without a server.

    The exit code is 1 when a check has failed.
    """
    from llmos.cli.doctor import checks
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit_json, emit_table
    from llmos.sdk.locate import find_home

    found = checks(find_home())
    if json:
        emit_json({"checks": [{"name": c.name, "state": c.state, "told": c.told} for c in found]})
    else:
        emit_table(("CHECK", "STATE", ""), [(c.name, c.state, c.told) for c in found], "")
    if any(check.state == "failed" for check in found):
        raise typer.Exit(FAILED)


@app.command(epilog=examples("llmos debug bundle", "llmos debug bundle --output case.tar.gz"))
def bundle(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; ./llmos-debug-TIME.tar.gz by default."),
    ] = None,
    json: Json = False,
) -> None:
    """Pack versions, settings, logs, status, processes and metrics into one file.

    Secrets, prompts and answers are taken out; look into it before you send it all the same. What
    a server would tell is left out where none answers.
    """
    import time

    from llmos.cli import bundle as packing
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.session import connect
    from llmos.sdk.locate import find_home

    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = output or Path(f"llmos-debug-{stamp}.tar.gz")
    with connect() as client:
        told = packing.write(path, find_home(), client)
    if json:
        emit_json({"path": str(path), "parts": told})
        return
    emit(str(path))
    for name, what in told.items():
        note(f"{name}: {what}")
