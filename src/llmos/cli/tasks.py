"""`task run classify summarize … ls show cancel result`: one thing done with many inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from llmos.cli import taskoptions as opt
from llmos.cli.options import ClassName, Json, examples

app = typer.Typer(
    help="One thing done with every row of a file.", no_args_is_help=True, rich_markup_mode=None
)

TaskID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos task ls` shows it, or its beginning or end.")
]
OWN_OPTIONS = {"labels": ("classify", "extract"), "to": ("translate",)}


@app.command(
    epilog=examples("llmos task run reviews.yaml", "llmos task run reviews.yaml -o out.csv --json")
)
def run(
    file: Annotated[Path, typer.Argument(help="A task file: YAML or JSON, see docs/tasks.md.")],
    out: opt.Out = None,
    detach: opt.Detach = False,
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
        model: opt.Model = "auto",
        source: opt.Source = None,
        csv: opt.Csv = None,
        jsonl: opt.Jsonl = None,
        parquet: opt.Parquet = None,
        text: opt.Text = None,
        file_format: opt.Format = None,
        column: opt.Column = None,
        columns: opt.Columns = None,
        keep: opt.Keep = None,
        out: opt.Out = None,
        prompt: opt.Prompt = None,
        system: opt.System = "",
        labels: opt.Labels = None,
        to: opt.To = "",
        schema: opt.Schema = None,
        language: opt.Language = None,
        temperature: opt.Temperature = None,
        max_tokens: opt.MaxTokens = None,
        service_class: opt.Class = ClassName.BATCH,
        deadline: opt.Deadline = None,
        timeout: opt.Timeout = None,
        retries: opt.Retries = 3,
        budget_tokens: opt.BudgetTokens = None,
        budget_cost: opt.BudgetCost = None,
        name: opt.Name = "",
        detach: opt.Detach = False,
        json: Json = False,
    ) -> None:
        _run_one(kind, dict(locals()))

    return command


def _run_one(kind: str, given: dict[str, Any]) -> None:
    """What a command line says, as the body of a task. Raises BadParameter, InvalidRequest."""
    from llmos.cli.taskfile import Planned, plan_targets
    from llmos.cli.taskrun import run_task

    _refuse(kind, given)
    source, inner = _input(given)
    targets = plan_targets(given["out"] or [])
    output: dict[str, Any] = {"formats": list(targets) or ["txt"]}
    policy = {
        "class": given["service_class"].value,
        "deadline_s": given["deadline"],
        "timeout_s": given["timeout"],
        "retries": given["retries"],
        "max_tokens": given["budget_tokens"],
        "max_cost": given["budget_cost"],
    }
    prompt, schema = given["prompt"], given["schema"]
    body = {
        "type": kind,
        "input": _given(inner | {"column": given["column"], "columns": _pairs(given["columns"])}),
        "output": output | _given({"columns": given["keep"]}),
        "policy": _given(policy),
        "sampling": _given({name: given[name] for name in ("temperature", "max_tokens")}),
        "prompt": None if prompt is None else _text_of(prompt, "--prompt"),
        "schema": None if schema is None else _json_of(schema),
        **{name: given[name] for name in ("model", "language", "labels", "system", "to", "name")},
    }
    planned = Planned(_given(body), source, targets)
    run_task(planned, detach=given["detach"], as_json=given["json"])


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", {}, [])}


def _refuse(kind: str, given: dict[str, Any]) -> None:
    for name, kinds in OWN_OPTIONS.items():
        if given[name] and kind not in kinds:
            raise typer.BadParameter(f"--{name.removesuffix('s')} is none of {kind}'s options")


def _input(given: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Where the input is, and what of it is said already. What is piped in is one, too."""
    chosen = [(name, given[name]) for name in ("csv", "jsonl", "parquet") if given[name]]
    source, text = given["source"], given["text"]
    if len(chosen) + (source is not None) + bool(text) > 1:
        raise typer.BadParameter("--input, --csv, --jsonl, --parquet, --text: one of them")
    if text:
        return None, {"items": text}
    if chosen:
        ((name, path),) = chosen
        return path, {"format": name}
    if source is None and (sys.stdin is None or sys.stdin.isatty()):
        raise typer.BadParameter("there is no input: --input FILE, --text TEXT, or a pipe")
    return source or "-", {"format": given["file_format"]}


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
    "caption": (
        "Say what is to be seen in the image (base64) of every row.",
        ("llmos task caption --jsonl images.jsonl --map image=data --keep id -o out.csv",),
    ),
    "transcribe": (
        "Write down what is said in the recording (base64 of a WAV file) of every row.",
        ("llmos task transcribe --jsonl calls.jsonl --map audio=wav --keep id -o out.csv",),
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
    from llmos.cli.find import find_job
    from llmos.cli.joblogs import use_of
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.taskshow import facts
    from llmos.cli.text import table

    with connect() as client:
        reply = client.tasks.show(find_job(client, task_id))
        if json:
            emit_json(reply)
        else:
            told = [*facts(reply), *use_of(client, reply.job)]
            emit(table(("task", reply.job.job_id), told))


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
    out: opt.Out = None,
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
