"""`runs ls show compare`: what was trained, on what, with what, and how well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmos.cli.options import Json, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmos.abi.jobs import JobEvent, JobRecord
    from llmos.sdk import Client

app = typer.Typer(
    help="Training and evaluation runs, and how they compare.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PROGRAMS = "train,evaluate"
RunID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos runs ls` shows it, or its beginning or end.")
]
PAGE = 1000


@app.command(epilog=examples("llmos runs ls", "llmos runs ls --json"))
def ls(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most lines.")] = 100,
    json: Json = False,
) -> None:
    """List runs, newest first."""
    from llmos.cli.jobs import progress_text
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect
    from llmos.cli.text import age

    with connect() as client:
        page = client.jobs.list(program=PROGRAMS, limit=limit)
    if json:
        emit_json(page)
        return
    rows = []
    for job in page.jobs:
        recipe = recipe_of(job)
        what = str(recipe.get("objective", job.spec.program)), str(recipe.get("base") or "-")
        row = (job.job_id, job.spec.name, *what, job.state, progress_text(job), measured(job))
        rows.append((*row, model_of(job), age(job.created_ns)))
    headers = ("RUN", "NAME", "OBJECTIVE", "BASE", "STATE", "PROGRESS", "MEASURED", "MODEL", "AGE")
    emit_table(headers, rows, "no runs yet; `llmos train` makes one")


@app.command(epilog=examples("llmos runs show 7f3a9c01", "llmos runs show 7f3a9c01 --json"))
def show(run_id: RunID, json: Json = False) -> None:
    """Show a run: what decided it, its data and code, its measures, what came of it."""
    from llmos.cli.find import find_job
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import table

    with connect() as client:
        job = client.jobs.show(find_job(client, run_id)).job
        events = read_events(client, job.job_id)
    if json:
        emit_json({"job": job, "events": events})
        return
    facts = [("run", job.job_id), ("state", f"{job.state}: {job.reason}")]
    facts += [(name, str(value)) for name, value in flat(recipe_of(job)).items()]
    about = next((e.value for e in reversed(events) if e.kind == "run"), {})
    facts += [(name, str(value)) for name, value in flat(about).items()]
    for name, (steps, values) in curves(events).items():
        facts.append((name, f"{spark(values)}  {values[0]:.4g} .. {values[-1]:.4g} ({steps[-1]})"))
    for split, scores in ((job.outputs or {}).get("metrics") or {}).items():
        facts += [(f"{split} {name}", f"{value:.4f}") for name, value in scores.items()]
    facts.append(("model", model_of(job)))
    emit(table(("field", "value"), facts))


@app.command(
    epilog=examples("llmos runs compare 7f3a9c01 0193a", "llmos runs compare A B --plot curves.svg")
)
def compare(
    run_ids: Annotated[list[str], typer.Argument(metavar="ID ID...", help="Runs, two or more.")],
    *,
    plot: Annotated[Path | None, typer.Option(help="Draw losses and measures: an .svg.")] = None,
    json: Json = False,
) -> None:
    """Compare runs: where their recipes differ, their measures, their curves."""
    from llmos.cli.find import find_job
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.runplot import check_plot, draw
    from llmos.cli.session import connect
    from llmos.cli.text import table

    if plot is not None:
        check_plot(plot)
    with connect() as client:
        jobs = [client.jobs.show(find_job(client, given)).job for given in run_ids]
        told = [curves(read_events(client, job.job_id)) for job in jobs]
    names = [f"{job.spec.name} {job.job_id[-8:]}" for job in jobs]
    rows = [*differences(jobs), *measures(jobs)]
    rows += [
        (name, *(spark(curve[name][1]) if name in curve else "-" for curve in told))
        for name in sorted(set().union(*told))
    ]
    if plot is not None:
        draw(plot, dict(zip(names, told, strict=True)))
    if json:
        emit_json(
            {"runs": jobs, "rows": [dict(zip(("", *names), row, strict=True)) for row in rows]}
        )
        return
    emit(table(("", *names), rows))
    if plot is not None:
        note(f"drawn: {plot}")


def recipe_of(job: JobRecord) -> dict[str, Any]:
    """What a run was asked for."""
    given = job.spec.inputs.get("recipe") or job.spec.inputs.get("eval") or {}
    return given if isinstance(given, dict) else {}


def model_of(job: JobRecord) -> str:
    """The version that came of it, or was measured."""
    made = (job.outputs or {}).get("model") or recipe_of(job).get("model")
    return made if isinstance(made, str) else "-"


def measured(job: JobRecord) -> str:
    """The first two measures of the last split."""
    metrics = (job.outputs or {}).get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        return "-"
    split, scores = list(metrics.items())[-1]
    if not isinstance(scores, dict):
        return "-"
    told = [f"{name} {value:.4f}" for name, value in list(scores.items())[:2]]
    return f"{split}: {', '.join(told)}"


def read_events(client: Client, job_id: str) -> list[JobEvent]:
    """All its metrics, and what it said of itself."""
    after = 0
    found: list[JobEvent] = []
    while events := client.jobs.events(job_id, after=after, limit=PAGE, kinds=("metric", "run")):
        found += events
        after = events[-1].number
    return found


def curves(events: list[JobEvent]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of the loss and of what was measured, by name. A step that was told twice
    (its attempt died after it) counts as the last time."""
    found: dict[str, dict[int, float]] = {}
    for event in events:
        value = event.value
        if event.kind != "metric" or value.get("final") or not isinstance(value.get("step"), int):
            continue
        split = value.get("split")
        names = (
            ("loss",) if split is None else tuple(n for n in value if n not in ("step", "split"))
        )
        for name in names:
            number = value.get(name)
            if isinstance(number, int | float):
                label = name if split is None else f"{split} {name}"
                found.setdefault(label, {})[value["step"]] = float(number)
    return {name: _sorted(points) for name, points in found.items()}


def _sorted(points: dict[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def spark(values: list[float], width: int = 24) -> str:
    """A curve in a line of text."""
    bars = "▁▂▃▄▅▆▇█"
    size = max(1, len(values) // width)
    parts = [values[i : i + size] for i in range(0, len(values), size)][:width]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(bars[min(7, int(8 * (mean - low) / span))] for mean in means)


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names."""
    made: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            made |= flat(value, f"{prefix}{name}.")
        else:
            made[f"{prefix}{name}"] = value
    return made


def differences(jobs: Sequence[JobRecord]) -> list[tuple[str, ...]]:
    """Fields of recipes that are not the same in all."""
    recipes = [flat(recipe_of(job)) for job in jobs]
    names = sorted(set().union(*recipes))
    rows = [(name, *(str(recipe.get(name, "-")) for recipe in recipes)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def measures(jobs: Sequence[JobRecord]) -> list[tuple[str, ...]]:
    """What each came to."""
    told = []
    for job in jobs:
        outputs = job.outputs or {}
        metrics = outputs.get("metrics")
        told.append(flat(metrics) if isinstance(metrics, dict) else {})
        told[-1] |= {n: outputs[n] for n in ("steps", "seconds", "tokens_per_s") if n in outputs}
    names = list(dict.fromkeys(name for one in told for name in one))
    return [(name, *(_number(one.get(name)) for one in told)) for name in names]


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
