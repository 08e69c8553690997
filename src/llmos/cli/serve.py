"""`serve`: runs a server in this process, in the foreground."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Any

import typer

from llmos.cli.options import Json


def serve(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8400 by default.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where all state lives; LLMOS_HOME or ~/.llmos by default.")
    ] = None,
    preload: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Load at the start; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. api.port=9000."),
    ] = None,
    json: Json = False,
) -> None:
    """Run a server until it is interrupted.

    The first interrupt drains its requests, a second one ends it at once.
    """
    from llmos.cli.failure import OK

    flags = as_flags(settings or [])
    given = {
        "api.host": host,
        "api.port": port,
        "home": str(home) if home is not None else None,
        "preload": preload or None,
    }
    flags.update({key: value for key, value in given.items() if value is not None})
    gc.disable()  # what is imported lives to the end: no collection finds anything in it
    import llmos.boot
    import llmos.settings

    gc.enable()
    code = llmos.boot.run(llmos.settings.load(flags), flags)
    if code != OK:
        raise typer.Exit(code)


def as_flags(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs to flags; the settings give each value its type."""
    flags: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"--set wants KEY=VALUE, not {pair!r}")
        flags[key.strip()] = value
    return flags
