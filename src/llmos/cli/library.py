"""`models search info`: the catalogue of known open models. Needs no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.options import Json, examples

if TYPE_CHECKING:
    from llmos.library.catalogue import Entry

app = typer.Typer(
    help="Known open models, to pull by name.", no_args_is_help=True, rich_markup_mode=None
)


EXTRAS = {"gguf": "gguf", "onnx": "onnx"}
"""What a driver needs besides the base install."""


@app.command(
    epilog=examples(
        "llmos models search",
        "llmos models search --task embed --language zh",
        "llmos models search qwen",
    )
)
def search(
    words: Annotated[
        list[str] | None, typer.Argument(help="All of them are in what is found.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="generate, classify, embed, rerank, extract, qa, ...")
    ] = None,
    language: Annotated[str | None, typer.Option(help="en, zh, ...")] = None,
    json: Json = False,
) -> None:
    """List known models, the smallest first."""
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.text import count
    from llmos.errors import InvalidRequest
    from llmos.library.catalogue import TASKS
    from llmos.library.catalogue import search as find

    if task is not None and task not in TASKS:
        raise InvalidRequest(f"{task!r} is none of {', '.join(TASKS)}", param="--task")
    found = find(words or [], task, language)
    if json:
        emit_json({"models": found})
        return
    rows = [
        (e.name, ",".join(e.tasks), ",".join(e.languages), count(e.params), e.license, e.about)
        for e in found
    ]
    headers = ("NAME", "FOR", "LANGUAGES", "PARAMETERS", "LICENSE", "ABOUT")
    emit_table(headers, rows, "none is known; `llmos pull hf:org/name` takes any other")


@app.command(
    epilog=examples("llmos models info qwen3-0.6b", "llmos models info bge-small-zh --json")
)
def info(
    name: Annotated[str, typer.Argument(help="As `llmos models search` shows it.")],
    json: Json = False,
) -> None:
    """Show what is known of a model, and what it takes to run it."""
    import msgspec

    from llmos.cli.output import emit, emit_json
    from llmos.cli.text import count, size, table
    from llmos.library.catalogue import find_entry, near

    entry = find_entry(name)
    if entry is None:
        raise near(name)
    if json:
        emit_json({**msgspec.to_builtins(entry), "hardware": entry.hardware})
        return
    extra = EXTRAS.get(entry.driver)
    rows = [
        ("source", entry.source or "comes with LLMOS"),
        ("for", ", ".join(entry.tasks)),
        ("languages", ", ".join(entry.languages)),
        ("parameters", count(entry.params)),
        ("license", entry.license),
        ("driver", entry.driver + (f" (pip install 'llmos[{extra}]')" if extra else "")),
        ("runs on", f"{entry.hardware} ({size(entry.memory_gb * 1e9)} in 16 bits)"),
        ("about", entry.about),
        *((f"{m.metric} on {m.texts}", f"{m.value:g}") for m in entry.measured),
        ("try", _try(entry)),
    ]
    emit(table(("model", entry.name), rows))


def _try(entry: Entry) -> str:
    """A first command. What comes with LLMOS is there already."""
    if "generate" in entry.tasks:
        return f"llmos run {entry.name}"
    if entry.source:
        return f"llmos pull {entry.name}"
    return f"llmos task {entry.tasks[0]} -m {entry.name} --text '...'"
