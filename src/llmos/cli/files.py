"""`file put ls get rm`: named bytes that the server keeps for jobs and clients."""

from __future__ import annotations

from typing import Annotated

import typer

from llmos.cli.options import Json, examples

app = typer.Typer(help="Files kept by the server.", no_args_is_help=True, rich_markup_mode=None)

FileID = Annotated[str, typer.Argument(metavar="ID", help="A file's id, as `llmos file ls` shows.")]


@app.command(epilog=examples("llmos file put requests.jsonl --purpose batch"))
def put(
    path: Annotated[str, typer.Argument(help="A file of this machine.")],
    purpose: Annotated[str, typer.Option(help="What it is for, in OpenAI's words.")] = "user_data",
    json: Json = False,
) -> None:
    """Send a file; its id is printed once it is on disk."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.progress import spinner
    from llmos.cli.session import connect

    with connect() as client, spinner(f"sending {path}"):
        file = client.files.put(path, purpose=purpose)
    if json:
        emit_json(file)
    else:
        emit(file.id)


@app.command(epilog=examples("llmos file ls", "llmos file ls --purpose batch_output"))
def ls(
    purpose: Annotated[str | None, typer.Option(help="Only of this purpose.")] = None,
    json: Json = False,
) -> None:
    """List files, newest first."""
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect
    from llmos.cli.text import age, size

    with connect() as client:
        files = client.files.list(purpose=purpose)
    if json:
        emit_json({"files": files})
        return
    rows = [
        (f.id, f.filename, f.purpose, size(f.bytes), age(f.created_at * 1_000_000_000))
        for f in files
    ]
    emit_table(("FILE", "NAME", "PURPOSE", "SIZE", "AGE"), rows, "no files")


@app.command(epilog=examples("llmos file get file_0193a", "llmos file get file_0193a -o out.jsonl"))
def get(
    file_id: FileID,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write it here, not to stdout.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print how much was written; wants --output.")
    ] = False,
) -> None:
    """Print a file's bytes, or write them to a file that appears once it is whole."""
    import sys
    from pathlib import Path

    from llmos.cli.output import emit_json
    from llmos.cli.session import connect
    from llmos.errors import InvalidRequest, StorageError

    if json and output is None:
        raise InvalidRequest(
            "--json wants --output: the file itself goes to stdout", param="--json"
        )
    with connect() as client:
        if output is None:
            client.files.get(file_id, sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
            return
        partial = Path(f"{output}.part")
        try:
            with partial.open("wb") as writer:
                num_bytes = client.files.get(file_id, writer.write)
            partial.replace(output)
        except OSError as error:
            raise StorageError(f"{output} cannot be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)
    if json:
        emit_json({"file": file_id, "path": output, "bytes": num_bytes})


@app.command(epilog=examples("llmos file rm file_0193a"))
def rm(file_id: FileID, json: Json = False) -> None:
    """Forget a file; a job that reads it goes on."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        gone = client.files.remove(file_id)
    if json:
        emit_json(gone)
    else:
        emit(f"removed {file_id}")
