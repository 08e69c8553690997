"""`eval run show result compare harness`: how good a model's answers are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmos.cli import evaloptions as opt
from llmos.cli.options import ClassName, Json, examples

app = typer.Typer(
    help="How good a model's answers are.", no_args_is_help=True, rich_markup_mode=None
)

EvalID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos job ls` shows it, or its beginning or end.")
]


@app.command(
    epilog=examples(
        "llmos eval run sentiment.yaml -o report.html",
        "llmos eval run --kind classify --model sentiment --data test.csv --map text=review",
        "llmos eval run --kind classify -m mine:4 --against mine:production --data test.csv "
        "--min accuracy=0.8 --worse accuracy=0.01",
        "llmos eval run --kind perplexity -m pilot --data book.txt",
    )
)
def run(
    file: opt.File = None,
    *,
    kind: opt.Kind = None,
    model: opt.Model = None,
    against: opt.Against = None,
    data: opt.Data = None,
    corpus: opt.Corpus = None,
    query_prefix: opt.QueryPrefix = None,
    document_prefix: opt.DocumentPrefix = None,
    data_format: opt.Format = None,
    columns: opt.Columns = None,
    labels: opt.Labels = None,
    rename: opt.Rename = None,
    slices: opt.Slices = None,
    limit: opt.Limit = None,
    seed: opt.Seed = None,
    language: opt.Language = None,
    judge: opt.Judge = None,
    by: opt.By = None,
    at_least: opt.AtLeast = None,
    at_most: opt.AtMost = None,
    worse: opt.Worse = None,
    service_class: Annotated[
        ClassName, typer.Option("--class", help="Service class.")
    ] = ClassName.BATCH,
    out: opt.Out = None,
    detach: opt.Detach = False,
    json: Json = False,
) -> None:
    """Measure a model on examples that are answered already.

    The exit code is 1 unless it was measured, and passed its gate if it has one.
    """
    from llmos.cli.evalrun import plan, run_evaluation

    flags = {
        "kind": kind,
        "model": model,
        "against": against,
        "format": data_format,
        "columns": _pairs(columns, "--map"),
        "labels": labels,
        "rename": _pairs(rename, "--rename"),
        "slices": slices,
        "limit": limit,
        "seed": seed,
        "language": language,
        "judge": None if judge is None else {"model": judge},
        "by": by,
        "query_prefix": query_prefix,
        "document_prefix": document_prefix,
        "gate": _gate(at_least, at_most, worse),
    }
    given = {name: value for name, value in flags.items() if value not in (None, [], {})}
    planned = plan(file, given, data, corpus)
    run_evaluation(planned, service_class.value, out or [], detach=detach, as_json=json)


def _gate(
    at_least: list[str] | None, at_most: list[str] | None, worse: list[str] | None
) -> dict[str, Any] | None:
    bounds: dict[str, dict[str, float]] = {}
    for name, pairs in (("min", at_least), ("max", at_most)):
        for score, number in _numbers(pairs, f"--{name}").items():
            bounds.setdefault(score, {})[name] = number
    margins = _numbers(worse, "--worse")
    return {"bounds": bounds, "worse": margins} if bounds or margins else None


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    made = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{option}: {pair!r} is not NAME=VALUE")
        made[name] = value
    return made


def _numbers(given: list[str] | None, option: str) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in _pairs(given, option).items()}
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None


@app.command(epilog=examples("llmos eval show 7f3a9c01", "llmos eval show 7f3a9c01 --json"))
def show(job_id: EvalID, json: Json = False) -> None:
    """Show what an evaluation came to."""
    from llmos.cli.evalrun import report
    from llmos.cli.find import find_job
    from llmos.cli.session import connect

    with connect() as client:
        reply = client.jobs.show(find_job(client, job_id))
    report(reply.job, as_json=json)


@app.command(
    epilog=examples(
        "llmos eval result 7f3a9c01 -o report.html", "llmos eval result 7f3a9c01 -o out.jsonl"
    )
)
def result(job_id: EvalID, out: opt.Out = None, json: Json = False) -> None:
    """Fetch an evaluation's report, or with --json write it to stdout."""
    from llmos.cli.evalrun import save
    from llmos.cli.find import find_job
    from llmos.cli.output import emit_json
    from llmos.cli.session import connect

    if not out and not json:
        raise typer.BadParameter("where to? -o report.html, or --json")
    with connect() as client:
        job = client.jobs.show(find_job(client, job_id)).job
        save(client, job, out or [])
    if json:
        emit_json(job.outputs)


@app.command(
    epilog=examples(
        "llmos eval compare 7f3a9c01 0193a", "llmos eval compare 7f3a9c01 0193a --score f1_macro"
    )
)
def compare(
    first: EvalID,
    second: Annotated[str, typer.Argument(metavar="ID", help="What it is compared with.")],
    *,
    score: Annotated[str, typer.Option(help="The one that counts most.")] = "",
    resamples: Annotated[
        int | None, typer.Option(min=100, max=100_000, help="Replicates; as in the first.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare two evaluations of the same data, example by example.

    From what both kept: no model is asked again. Differences are of the first against the second.
    """
    from llmos.cli import evalcompare

    evalcompare.compare(first, second, score, resamples or 0, as_json=json)


@app.command(
    epilog=examples(
        "llmos eval harness --model pilot --tasks my_task --include ./tasks --limit 50",
        "llmos eval harness -m mine --tasks arc_easy,hellaswag --tokenizer ./mine -o out.json",
    )
)
def harness(
    model: Annotated[str, typer.Option("--model", "-m", help="Who is measured.")],
    tasks: Annotated[str, typer.Option(help="lm-evaluation-harness tasks, with commas.")],
    *,
    include: Annotated[
        Path | None, typer.Option(help="A folder with task files of your own.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="By chat completions: for tasks that generate.")
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Folder of the model's tokenizer; by default the served model's own."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Examples of each task.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples shown in the prompt.")] = None,
    concurrent: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 8,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="All results, as JSON.")] = None,
    json: Json = False,
) -> None:
    """Run tasks of lm-evaluation-harness against the server.

    It wants `pip install 'llmos[harness]'`. Tasks of your own need no network.
    """
    from llmos.cli.harness import run_harness

    run_harness(
        model,
        [task for task in tasks.split(",") if task],
        include=include,
        chat=chat,
        tokenizer=tokenizer,
        limit=limit,
        shots=shots,
        concurrent=concurrent,
        out=out,
        as_json=json,
    )
