"""`infer`: a few inputs for a model that answers item by item, whatever it is for."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmos.cli.options import Json

if TYPE_CHECKING:
    from llmos.sdk.items import Datum, Inferred

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[INPUT]...", help="Texts, or JSON objects; else the lines of stdin."),
]
Media = list[Path] | None


def infer(
    model: Annotated[str, typer.Argument(help="The model, as `llmos ls` shows it.")],
    inputs: Inputs = None,
    *,
    image: Annotated[Media, typer.Option(help="A file with an image; repeatable.")] = None,
    audio: Annotated[Media, typer.Option(help="A WAV file; repeatable.")] = None,
    kind: Annotated[str | None, typer.Option(help="Else what the model is for.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the kind; repeatable.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where a voice's sound goes: a WAV file."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask a model for what it is for: classes, vectors, texts, speech."""
    from llmos.cli.output import emit_json
    from llmos.cli.session import connect

    given = [
        *(_input(text) for text in inputs or ()),
        *_files(image, "image"),
        *_files(audio, "audio"),
    ] or [_input(line.rstrip("\n")) for line in _lines()]
    with connect() as client:
        made = client.items.infer(model, given, kind=kind, params=_params(param))
    if out is not None:
        _save(made, out)
    if json:
        emit_json([_plain(one) for one in made.data])
    else:
        _tell(made, out)
    if any(one.error is not None for one in made.data):
        raise typer.Exit(1)


def _lines() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("there is no input: texts, --image, --audio, or a pipe")
    return list(sys.stdin)


def _input(text: str) -> Any:
    """What begins with a brace is an object of several fields."""
    import msgspec

    if not text.lstrip().startswith("{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _files(paths: Sequence[Path] | None, key: str) -> list[dict[str, bytes]]:
    """Raises BadParameter for one that cannot be read."""
    found = []
    for path in paths or ():
        try:
            found.append({key: path.expanduser().read_bytes()})
        except OSError as error:
            raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from error
    return found


def _params(pairs: Sequence[str] | None) -> dict[str, Any]:
    """A value that is JSON is what it says, any other a text. Raises BadParameter."""
    import msgspec

    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"--param {pair}: NAME=VALUE is expected")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


def _plain(one: Datum) -> dict[str, Any]:
    """As the server has it."""
    made: dict[str, Any] = {"index": one.index}
    if one.error is not None:
        return made | {"error": {"code": one.error.code, "message": one.error.message}}
    return made | {"output": one.output} | ({"note": one.note} if one.note else {})


def _tell(made: Inferred, out: Path | None) -> None:
    """A line for each input: its text where it is one, else its output as JSON."""
    import msgspec

    from llmos.cli.output import emit, note

    for one in made.data:
        if one.error is not None:
            note(f"input {one.index}: {one.error.message}")
            continue
        output = one.output
        if isinstance(output, dict) and "audio" in output:
            output = {name: value for name, value in output.items() if name != "audio"}
            if out is None:
                note("the sound goes nowhere without --out")
        elif isinstance(output, dict) and isinstance(output.get("text"), str):
            output = output["text"]
        emit(output if isinstance(output, str) else msgspec.json.encode(output).decode())
        if one.note:
            note(f"input {one.index}: {one.note}")


def _save(made: Inferred, out: Path) -> None:
    """Of several inputs, `-1`, `-2` ... follow the name of the second, third ... Raises
    BadParameter."""
    sounds = [
        one.output["audio"]
        for one in made.data
        if isinstance(one.output, dict) and "audio" in one.output
    ]
    if not sounds:
        raise typer.BadParameter(f"--out is for sound, and {made.kind} makes none")
    for number, sound in enumerate(sounds):
        path = out if not number else out.with_stem(f"{out.stem}-{number}")
        try:
            path.write_bytes(base64.b64decode(sound))
        except OSError as error:
            raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from error
