"""`key add ls revoke`: who may use a server."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from llmos.cli.options import ClassName, Json, examples

app = typer.Typer(
    help="Keys of principals of tenants.", no_args_is_help=True, rich_markup_mode=None
)


class RoleName(enum.StrEnum):
    """As in abi.principal; named here too so that `--help` need not load the abi."""

    ADMIN = "admin"
    USER = "user"


@app.command(
    epilog=examples(
        "llmos key add alice --tenant research",
        "llmos key add nightly --tenant research --max-class batch",
    )
)
def add(
    name: Annotated[str, typer.Argument(help="The principal's name.")],
    *,
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to.")],
    role: Annotated[RoleName, typer.Option(help="What it may do.")] = RoleName.USER,
    max_class: Annotated[
        ClassName, typer.Option(help="The highest service class it may ask for.")
    ] = ClassName.INTERACTIVE,
    weight: Annotated[
        float, typer.Option(help="Its share next to the others': 0.001 to 1000.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Make a key.

    Its secret is printed once, alone on stdout, and stored nowhere.
    """
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.session import connect

    with connect() as client:
        new = client.keys.add(
            name, tenant, role=role.value, max_class=max_class.value, weight=weight
        )
    if json:
        emit_json({"key": new.key, "secret": new.secret})
        return
    note(f"{new.key.key_id}  {new.key.name}  {new.key.role.value}  of {tenant}; the secret, once:")
    emit(new.secret)


@app.command(epilog=examples("llmos key ls", "llmos key ls --json"))
def ls(json: Json = False) -> None:
    """List the keys, without their secrets."""
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect
    from llmos.cli.text import age

    with connect() as client:
        keys = client.keys.list()
    if json:
        emit_json({"keys": keys})
        return
    rows = [
        (
            k.key_id,
            k.name,
            k.tenant_id,
            k.role.value,
            k.max_class.name.lower(),
            f"{k.weight:g}",
            age(k.created_ns),
            "revoked" if k.revoked_ns is not None else "active",
        )
        for k in keys
    ]
    headers = ("KEY", "NAME", "TENANT", "ROLE", "MAX CLASS", "WEIGHT", "AGE", "STATE")
    emit_table(headers, rows, "no keys")


@app.command(epilog=examples("llmos key revoke alice"))
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key's id or name.")],
    json: Json = False,
) -> None:
    """End a key; what it started already goes on."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        revoked = client.keys.revoke(key)
    if json:
        emit_json(revoked)
    else:
        emit(f"revoked {revoked.name} ({revoked.key_id})")
