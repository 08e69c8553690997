"""`config show path`: the settings a server started here would run with. Needs no server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmos.cli.options import Json, examples

app = typer.Typer(
    help="The settings a server started here would have.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    epilog=examples("llmos config show", "llmos config show --origin", "llmos config show --json")
)
def show(
    origin: Annotated[
        bool, typer.Option("--origin", help="Show where each value is from, and what it means.")
    ] = False,
    json: Json = False,
) -> None:
    """Show every setting in force."""
    import llmos.settings
    from llmos.cli.output import emit_json, emit_table

    entries = llmos.settings.origins(llmos.settings.load({}))
    if json:
        names = ("key", "value", "origin", "description")
        told = [(key, plain(value), where, about) for key, value, where, about in entries]
        emit_json({"settings": [dict(zip(names, entry, strict=True)) for entry in told]})
        return
    headers = ("KEY", "VALUE", "ORIGIN", "MEANING")
    num_columns = 4 if origin else 2
    rows = [(key, str(value), where, about)[:num_columns] for key, value, where, about in entries]
    emit_table(headers[:num_columns], rows, "no settings")


def plain(value: Any) -> Any:
    """As JSON can say it: a path is its text."""
    return value if value is None or isinstance(value, bool | int | float | list) else str(value)


@app.command(epilog=examples("llmos config path"))
def path(json: Json = False) -> None:
    """Show the home in force, where all state lives."""
    from llmos.cli.output import emit, emit_json
    from llmos.sdk.locate import find_home

    home = find_home()
    if json:
        emit_json({"home": str(home)})
    else:
        emit(str(home))
