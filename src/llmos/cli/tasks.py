"""`task run classify summarize … ls show cancel result`: one thing done with many inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from llmos.cli.duration import parse_duration
from llmos.cli.options import ClassName, Json, examples

app = typer.Typer(
    help="One thing done with every row of a file.", no_args_is_help=True, rich_markup_mode=None
)

TaskID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos task ls` shows it, or its beginning or end.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Print its id and leave it to run.")]
Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        "-o",
        help="Where results go: .jsonl .json .csv .parquet .md .html .txt. Repeatable.",
    ),
]
OWN_OPTIONS = {"labels": ("classify", "extract"), "to": ("translate",)}


@app.command(
    epilog=examples("llmos task run reviews.yaml", "llmos task run reviews.yaml -o out.csv --json")
)
def run(
    file: Annotated[Path, typer.Argument(help="A task file: YAML or JSON, see docs/tasks.md.")],
    out: Out = None,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Do what a task file says."""
    from llmos.cli.taskfile import plan_targets, read_task_file
    from llmos.cli.taskrun import run_task

    planned = read_task_file(file)
    if out:
        targets = plan_targets(out)
        given = planned.body.get("output")
        wanted = {**given, "formats": list(targets)} if isinstance(given, dict) else given
        body = planned.body | {"output": wanted or {"formats": list(targets)}}
        planned = planned._replace(body=body, targets=targets)
    run_task(planned, detach=detach, as_json=json)


def _one_liner(kind: str) -> Callable[..., None]:
    """The command of one kind: all have the same options."""

    def command(
        *,
        model: Annotated[
            str, typer.Option("--model", "-m", help="auto: the server chooses one, and says why.")
        ] = "auto",
        source: Annotated[
            str | None,
            typer.Option(
                "--input",
                "-i",
                help="A file, a folder, or - for stdin. Its suffix is its format.",
            ),
        ] = None,
        csv: Annotated[str | None, typer.Option(help="A file of CSV.")] = None,
        jsonl: Annotated[str | None, typer.Option(help="A file of JSON lines.")] = None,
        parquet: Annotated[str | None, typer.Option(help="A Parquet file.")] = None,
        text: Annotated[list[str] | None, typer.Option(help="An input itself; repeatable.")] = None,
        file_format: Annotated[
            str | None,
            typer.Option("--format", help="csv, tsv, jsonl, json, parquet, lines or document."),
        ] = None,
        column: Annotated[str | None, typer.Option(help="The column with the text.")] = None,
        columns: Annotated[
            list[str] | None,
            typer.Option("--map", help="NAME=COLUMN, for what else is read. Repeatable."),
        ] = None,
        keep: Annotated[
            list[str] | None, typer.Option(help="Only these columns come back. Repeatable.")
        ] = None,
        out: Out = None,
        prompt: Annotated[
            str | None, typer.Option(help="A Jinja template over the columns, or @FILE with it.")
        ] = None,
        system: Annotated[str, typer.Option(help="The system message.")] = "",
        labels: Annotated[
            list[str] | None, typer.Option("--label", help="One there is; repeatable.")
        ] = None,
        to: Annotated[str, typer.Option(help="The language to translate into.")] = "",
        schema: Annotated[
            str | None, typer.Option(help="JSON schema of an answer, or @FILE with it.")
        ] = None,
        language: Annotated[
            str | None, typer.Option(help="Of the inputs (en, zh ...), for the choice of a model.")
        ] = None,
        temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
        max_tokens: Annotated[int | None, typer.Option(help="Of one answer.")] = None,
        service_class: Annotated[
            ClassName, typer.Option("--class", help="Service class.")
        ] = ClassName.BATCH,
        deadline: Annotated[
            float | None,
            typer.Option(parser=parse_duration, metavar="TIME", help="Of the task: 90s, 10m, 2h."),
        ] = None,
        timeout: Annotated[
            float | None, typer.Option(parser=parse_duration, metavar="TIME", help="Of one input.")
        ] = None,
        retries: Annotated[int, typer.Option(min=0, help="Of one input.")] = 3,
        budget_tokens: Annotated[int | None, typer.Option(min=1, help="Of all inputs.")] = None,
        budget_cost: Annotated[float | None, typer.Option(help="US dollars.")] = None,
        name: Annotated[str, typer.Option(help="A name for people; the report's title.")] = "",
        detach: Detach = False,
        json: Json = False,
    ) -> None:
        from llmos.cli.taskfile import Planned, plan_targets
        from llmos.cli.taskrun import run_task

        _refuse(kind, {"labels": labels, "to": to})
        where = {"csv": csv, "jsonl": jsonl, "parquet": parquet}
        found, inner = _input(source, where, text, file_format)
        targets = plan_targets(out or [])
        output: dict[str, Any] = {"formats": list(targets) or ["txt"]}
        policy = {
            "class": service_class.value,
            "deadline_s": deadline,
            "timeout_s": timeout,
            "retries": retries,
            "max_tokens": budget_tokens,
            "max_cost": budget_cost,
        }
        body: dict[str, Any] = {
            "type": kind,
            "model": model,
            "input": _given(inner | {"column": column, "columns": _pairs(columns)}),
            "output": output | _given({"columns": keep}),
            "policy": _given(policy),
            "sampling": _given({"temperature": temperature, "max_tokens": max_tokens}),
            "language": language,
            "prompt": None if prompt is None else _text_of(prompt, "--prompt"),
            "schema": None if schema is None else _json_of(schema),
            "labels": labels,
            "system": system,
            "to": to,
            "name": name,
        }
        run_task(Planned(_given(body), found, targets), detach=detach, as_json=json)

    return command


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", {}, [])}


def _refuse(kind: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value and kind not in OWN_OPTIONS[name]:
            raise typer.BadParameter(f"--{name.removesuffix('s')} is none of {kind}'s options")


def _input(
    source: str | None, where: dict[str, str | None], text: list[str] | None, named: str | None
) -> tuple[str | None, dict[str, Any]]:
    """Where the input is, and what of it is said already. What is piped in is one, too."""
    chosen = [(name, path) for name, path in where.items() if path is not None]
    ways = len(chosen) + (source is not None) + bool(text)
    if ways > 1:
        raise typer.BadParameter("--input, --csv, --jsonl, --parquet, --text: one of them")
    if text:
        return None, {"items": text}
    if chosen:
        ((name, path),) = chosen
        return path, {"format": name}
    if source is None and (sys.stdin is None or sys.stdin.isatty()):
        raise typer.BadParameter("there is no input: --input FILE, --text TEXT, or a pipe")
    return source or "-", {"format": named}


def _pairs(given: list[str] | None) -> dict[str, str]:
    made = {}
    for pair in given or []:
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise typer.BadParameter(f"{pair!r} is not NAME=COLUMN")
        made[name] = column
    return made


def _text_of(given: str, option: str) -> str:
    from llmos.errors import InvalidRequest

    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{given[1:]}: {error}", param=option) from error


def _json_of(given: str) -> Any:
    import msgspec

    from llmos.errors import InvalidRequest

    try:
        return msgspec.json.decode(_text_of(given, "--schema"))
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"not JSON: {error}", param="--schema") from error


_KINDS = {
    "generate": (
        "Answer a prompt for every row.",
        ("llmos task generate --csv q.csv --prompt 'Reply to: {{ message }}' -o out.csv",),
    ),
    "classify": (
        "Put one label on every row.",
        (
            "llmos task classify --csv reviews.csv --column text -o out.csv -o report.html",
            "llmos task classify -m M --csv reviews.csv --column text --label good --label bad",
        ),
    ),
    "summarize": (
        "Sum up every row, or every file of a folder.",
        ("llmos task summarize --input ./minutes -o out.md",),
    ),
    "translate": (
        "Translate every row.",
        ("llmos task translate --to Chinese --jsonl texts.jsonl -o out.jsonl",),
    ),
    "extract": (
        "Find names in every row, or what a schema asks for.",
        ("llmos task extract --csv letters.csv --column body --schema @letter.json -o out.csv",),
    ),
    "qa": (
        "Answer a question from a text, row by row.",
        ("llmos task qa --csv q.csv --map question=q --map context=page -o out.csv",),
    ),
    "embed": (
        "Turn every row into a vector.",
        ("llmos task embed --csv docs.csv --column text -o vectors.parquet",),
    ),
    "rerank": (
        "Order the documents of every row by a query.",
        ("llmos task rerank --jsonl searches.jsonl -o out.jsonl",),
    ),
}
for _kind, (_about, _lines) in _KINDS.items():
    app.command(_kind, help=_about, epilog=examples(*_lines))(_one_liner(_kind))


@app.command(epilog=examples("llmos task ls", "llmos task ls --all --json"))
def ls(
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Those that have ended as well.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most lines.")] = 100,
    json: Json = False,
) -> None:
    """List tasks, newest first."""
    from llmos.cli.jobs import progress_text
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect
    from llmos.cli.text import age

    with connect() as client:
        page = client.tasks.list(state=() if every else "live", limit=limit)
    if json:
        emit_json(page)
        return
    rows = []
    for job in page.jobs:
        task = job.spec.inputs.get("task", {})
        what = (str(task.get("kind")), str(task.get("model")), job.spec.name)
        rows.append((job.job_id, *what, job.state, progress_text(job), age(job.created_ns)))
    headers = ("TASK", "TYPE", "MODEL", "NAME", "STATE", "PROGRESS", "AGE")
    emit_table(headers, rows, "no tasks" if every else "no live task; --all shows ended ones")


@app.command(epilog=examples("llmos task show 7f3a9c01", "llmos task show 7f3a9c01 --json"))
def show(task_id: TaskID, json: Json = False) -> None:
    """Show what is known of a task."""
    from llmos.cli.jobs import show as show_job

    show_job(task_id, json=json)


@app.command(epilog=examples("llmos task cancel 7f3a9c01"))
def cancel(task_id: TaskID, json: Json = False) -> None:
    """End a task; what is done stays."""
    from llmos.cli.find import find_job
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect

    with connect() as client:
        reply = client.tasks.cancel(find_job(client, task_id))
    if json:
        emit_json(reply)
    else:
        emit(f"{reply.job.job_id}  {reply.job.state}")


@app.command(
    epilog=examples(
        "llmos task result 7f3a9c01 -o out.csv", "llmos task result 7f3a9c01 --rows --json"
    )
)
def result(
    task_id: TaskID,
    out: Out = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="What each input took: times, tokens, model, as JSONL.")
    ] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Inputs without a result.")] = False,
    json: Json = False,
) -> None:
    """Fetch a task's results, to a file or to stdout (with --json: as JSON lines)."""
    from llmos.cli.find import find_job
    from llmos.cli.session import connect
    from llmos.cli.taskfile import plan_targets
    from llmos.cli.taskrun import save

    with connect() as client:
        found = find_job(client, task_id)
        stream = "rows" if rows else "errors" if errors else "jsonl" if json else None
        if out:
            save(client, found, plan_targets(out), to_stdout=False)
        else:
            client.tasks.result(found, sys.stdout.buffer.write, stream)
            sys.stdout.flush()
