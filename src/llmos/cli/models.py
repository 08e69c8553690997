"""`pull ls show quantize rm promote load pin unload`: the models of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.duration import parse_duration
from llmos.cli.options import Dtype, Json, QuantizedType, Ref

if TYPE_CHECKING:
    from llmos.abi.registry import ModelVersion, PullOptions, PullProgress
    from llmos.library.catalogue import Entry
    from llmos.sdk import Client


def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of the catalogue, hf:org/name[@revision], file:PATH, or a folder's path; "
            "of a model that stays elsewhere, openai:https://host/v1#MODEL or openai:FILE.yaml."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Its name here; by default the source's own.")
    ] = None,
    *,
    driver: Annotated[
        str | None, typer.Option(help="Who is to serve it; by default the best that reads it.")
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of openai: the name of the secret it wants as its key."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Of an adapter that PEFT made: the model here it is of."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Bring a model in, or an adapter of one that is here.

    Its files are checked and hashed before anything of it is visible.
    """
    from llmos.abi.registry import PullOptions
    from llmos.cli.output import emit, emit_json
    from llmos.cli.remote import as_remote
    from llmos.cli.session import connect
    from llmos.cli.text import size

    known = find_known(source)
    if known is not None:
        source, name = known.source, name or known.name
    source, remote = as_remote(as_source(source), key_env)
    check_source(source)
    with connect(start=True) as client:
        options = PullOptions(driver, remote, base)
        version = pull_model(client, source, name, options, as_json=json)
    if json:
        emit_json({"event": "done", "model": version})
    else:
        over = f"  {version.adapter.method} over {version.adapter.base}" if version.adapter else ""
        emit(f"{version.ref}  {size(own_bytes(version))}  {version.architecture}{over}")


def pull_model(
    client: Client,
    source: str,
    name: str | None,
    options: PullOptions | None = None,
    *,
    as_json: bool,
) -> ModelVersion:
    """Pull with a bar, or with `as_json` a line per report."""
    from llmos.cli.output import emit_json
    from llmos.cli.progress import pull_bar
    from llmos.sdk.wire import to_wire

    if as_json:

        def report(progress: PullProgress) -> None:
            emit_json({"event": "progress", "progress": to_wire(progress)})

        return client.models.pull(source, name, progress=report, options=options)
    with pull_bar() as show:
        return client.models.pull(source, name, progress=show, options=options)


def quantize(
    ref: Ref,
    to: Annotated[QuantizedType, typer.Option(help="What its weights become.")],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Its name; by default MODEL-TO.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a version of a model with smaller weights.

    The model stays as it is. `llmos load MODEL --dtype int8` does the same in memory alone.
    """
    from llmos.cli.output import emit, emit_json
    from llmos.cli.progress import pull_bar
    from llmos.cli.session import connect
    from llmos.cli.text import size
    from llmos.sdk.wire import to_wire

    def report(progress: PullProgress) -> None:
        emit_json({"event": "progress", "progress": to_wire(progress)})

    with connect() as client:
        if json:
            version = client.models.quantize(ref, to.value, name, progress=report)
            emit_json({"event": "done", "model": version})
            return
        with pull_bar() as show_bar:
            version = client.models.quantize(ref, to.value, name, progress=show_bar)
    emit(f"{version.ref}  {size(version.size_bytes)}  {version.dtype}")


def find_known(text: str) -> Entry | None:
    """What the catalogue says under this name, where no path has it."""
    from pathlib import Path

    from llmos.library.catalogue import find_entry

    if ":" in text or Path(text).expanduser().exists():
        return None
    entry = find_entry(text)
    return entry if entry is not None and entry.source else None


def as_source(text: str) -> str:
    """A path that is there means `file:` and itself; anything else is left to the server."""
    from pathlib import Path

    if ":" not in text and Path(text).expanduser().exists():
        return f"file:{text}"
    return text


def check_source(source: str) -> None:
    """Raises ModelNotFound for what is no address and no path, but the name of something else."""
    from llmos.errors import ModelNotFound
    from llmos.library.catalogue import near

    if ":" in source or source.startswith(("/", "~", ".")):
        return
    if "/" in source:
        raise ModelNotFound(f"there is no folder {source!r}; the hub's is 'hf:{source}'")
    raise near(source)


def ls(json: Json = False) -> None:
    """List the models."""
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect
    from llmos.cli.text import age, count, size

    with connect() as client:
        models = client.models.list()
    if json:
        emit_json({"models": models})
        return
    rows = [
        (
            m.ref,
            ",".join(m.aliases),
            count(m.num_parameters) if m.num_parameters else "-",
            size(own_bytes(m)),
            str(m.context_length),
            m.dtype or "-",
            m.driver,
            f"{m.adapter.method} over {m.adapter.base}" if m.adapter else "-",
            age(m.created_ns),
        )
        for m in models
    ]
    headers = (
        "MODEL",
        "ALIASES",
        "PARAMETERS",
        "SIZE",
        "CONTEXT",
        "DTYPE",
        "DRIVER",
        "ADAPTER",
        "AGE",
    )
    emit_table(headers, rows, "no models yet; bring one in with `llmos pull`")


def own_bytes(model: ModelVersion) -> int:
    """Of its files, without those of its base."""
    return model.adapter.size_bytes if model.adapter else model.size_bytes


def show(ref: Ref, json: Json = False) -> None:
    """Show everything known of one model version."""
    import msgspec

    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import size, table

    with connect() as client:
        model = client.models.show(ref)
    if json:
        emit_json(model)
        return
    rows = []
    for name, value in msgspec.to_builtins(model).items():
        text = str(value)
        if name.endswith("_bytes"):
            text = f"{value} ({size(value)})"
        elif name == "created_ns":
            text = _utc(value)
        elif name == "adapter" and model.adapter is not None:
            of = model.adapter
            text = (
                f"{of.method} over {of.base} ({of.base_digest}), {size(of.size_bytes)} of its own"
            )
        elif name == "adapter":
            continue
        elif isinstance(value, list):
            text = ", ".join(str(item) for item in value)
        rows.append((name, text or "-"))
    emit(table(("ref", model.ref), rows))


def _utc(then_ns: int) -> str:
    import datetime

    then = datetime.datetime.fromtimestamp(then_ns // 1_000_000_000, datetime.UTC)
    return then.strftime("%Y-%m-%d %H:%M:%S UTC")


def rm(
    ref: Ref,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Forget a model version and free its space."""
    import sys

    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import size, visible
    from llmos.errors import InvalidRequest

    with connect() as client:
        model = client.models.show(ref)
        if not yes:
            if json or not sys.stdin.isatty():
                raise InvalidRequest(f"removing {model.ref} wants --yes when nobody can be asked")
            typer.confirm(
                visible(f"remove {model.ref} ({size(own_bytes(model))})?"), abort=True, err=True
            )
        removed = client.models.remove(model.ref)
    if json:
        emit_json(removed)
    else:
        emit(f"removed {removed.ref}")


def promote(
    ref: Ref,
    alias: Annotated[
        str, typer.Argument(help="Its other name, such as production: NAME:production is it then.")
    ] = "production",
    off: Annotated[
        bool, typer.Option("--off", help="Take the alias away from the version that has it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with it.")] = "",
    json: Json = False,
) -> None:
    """Give a model version an alias, such as production.

    Whoever asks for NAME:ALIAS is answered by this version from now on. `llmos pipeline` does it
    once a gate has been passed.
    """
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        if off:
            name = ref.partition(":")[0]
            version = client.models.unalias(f"{name}:{alias}")
        else:
            version = client.models.alias(ref, alias, reason=reason)
    if json:
        emit_json(version)
    else:
        emit(f"{version.name}:{alias} is {'nothing now' if off else version.ref}")


def load(
    ref: Ref,
    keep_alive: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration,
            metavar="TIME",
            help="How long it then stays unused: 90s, 10m, 2h, 0, forever.",
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="The type of its weights in memory; auto: that of its files."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A smaller model with the same tokens to guess ahead."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a model resident now, not at its first request.

    A --dtype or --draft lasts until the model is unloaded; while it is there with another one,
    unload it first. Answers are the same with a draft model as without one.
    """
    from llmos.cli.output import emit, emit_json
    from llmos.cli.progress import spinner
    from llmos.cli.session import connect

    with connect() as client, spinner(f"loading {ref}"):
        done = client.models.load(ref, keep_alive, None if dtype is None else dtype.value, draft)
    if json:
        emit_json({"done": done.what})
    else:
        emit(done.what)


def pin(
    ref: Ref,
    off: Annotated[bool, typer.Option("--off", help="Keep it no longer than any other.")] = False,
    json: Json = False,
) -> None:
    """Load a model and keep it, whatever else needs room.

    It lasts until --off, until the model is unloaded, or until the server stops.
    """
    from llmos.cli.output import emit, emit_json
    from llmos.cli.progress import spinner
    from llmos.cli.session import connect

    with connect() as client, spinner(f"{'unpinning' if off else 'pinning'} {ref}"):
        done = client.models.unpin(ref) if off else client.models.pin(ref)
    if json:
        emit_json({"done": done.what})
    else:
        emit(f"{'unpinned' if off else 'pinned'} {ref}")


def unload(ref: Ref, json: Json = False) -> None:
    """Take a model out of memory.

    Its running requests finish first, or are suspended; a pin ends with it.
    """
    from llmos.cli.output import emit, emit_json
    from llmos.cli.progress import spinner
    from llmos.cli.session import connect

    with connect() as client, spinner(f"unloading {ref}"):
        done = client.models.unload(ref)
    if json:
        emit_json({"done": done.what})
    else:
        emit(f"unloaded {ref}")
