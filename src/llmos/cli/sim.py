"""`sim`: a trace of requests through the scheduler, on simulated workers, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.options import Json

if TYPE_CHECKING:
    import random

    from llmos.abi.principal import ServiceClass
    from llmos.kernel.sim.calls import Call
    from llmos.kernel.sim.report import Report
    from llmos.kernel.sim.run import Outcome
    from llmos.kernel.sim.setup import Setup

MAX_CALLS = 10_000_000
PLOTS = (".svg", ".png", ".pdf")


def sim(
    *,
    trace: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON lines; without it, Poisson arrivals (--rate, --limit)."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="fair, priority, round-robin, fifo, or a plugin's name.")
    ] = "fair",
    replicas: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="Machines with one replica per model, least open first."
        ),
    ] = 1,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Requests a replica batches.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    speed: Annotated[
        float, typer.Option(min=1e-6, max=1e6, help="How much faster the calls come.")
    ] = 1.0,
    tenants: Annotated[
        str, typer.Option(help="Draw tenants: how many, or proportions as in 10,1,1,1.")
    ] = "",
    classes: Annotated[
        str, typer.Option(help="Draw classes, as in interactive=1,default=2,batch=1.")
    ] = "",
    faults: Annotated[
        str, typer.Option(help="none, all, or shares as in crashed=0.2,late=0.01.")
    ] = "none",
    rate: Annotated[
        float, typer.Option(min=1e-3, max=1e6, help="Poisson arrivals per second.")
    ] = 4.0,
    limit: Annotated[
        int, typer.Option(min=0, max=MAX_CALLS, help="First calls only; 0: all, or 1000 made up.")
    ] = 0,
    step: Annotated[
        str,
        typer.Option(help="Milliseconds of an engine step: fixed, per row, per prompt token."),
    ] = "15,1,0.1",
    check: Annotated[
        int, typer.Option(min=0, help="Look into the core's books every so many steps; 0: never.")
    ] = 0,
    plot: Annotated[Path | None, typer.Option(help="Draw the result into this file.")] = None,
    json: Json = False,
) -> None:
    """Run a trace through the scheduler on simulated workers.

    The core is the server's own; the clock and the workers are not. The same seed and trace give
    the same decisions, and so the same hash.
    """
    import random

    from llmos.cli.output import emit_json
    from llmos.kernel.sim.report import summarize
    from llmos.kernel.sim.run import Simulation

    if plot is not None:
        _check_plot(plot)
    setup = _setup(policy, replicas, slots, faults=faults, step=step, check_every=check)
    rng = random.Random(seed)
    calls = _calls(trace, rng, (rate, limit, speed), tenants, classes)
    simulation = Simulation(setup, rng)
    _run(simulation.run, calls)
    report = summarize(simulation.ran)
    if plot is not None:
        _draw(report, simulation.ran.outcomes, plot)
    if json:
        emit_json(report)
    else:
        _show(report)


def _setup(
    policy: str, replicas: int, slots: int, *, faults: str, step: str, check_every: int
) -> Setup:
    from llmos.kernel.sim import faults as faulty
    from llmos.kernel.sim.setup import Setup
    from llmos.kernel.sim.worker import StepCost
    from llmos.plugins import entry_points

    fixed_ms, row_ms, prompt_ms = _numbers(step, "step", 3)
    return Setup(
        policy=policy,
        make_policy=entry_points.load(entry_points.POLICIES, policy),
        num_machines=replicas,
        num_slots=slots,
        cost=StepCost(round(fixed_ms * 1e6), round(row_ms * 1e6), round(prompt_ms * 1e6)),
        faults=faulty.parse(faults),
        check_every=check_every,
    )


def _calls(
    trace: Path | None,
    rng: random.Random,
    arrivals: tuple[float, int, float],
    tenants: str,
    classes: str,
) -> list[Call]:
    import itertools

    from llmos.kernel.sim.calls import assign, hurry, poisson

    rate, limit, speed = arrivals
    if trace is None:
        source: Iterator[Call] = poisson(rng, limit or 1000, rate)
    else:
        source = itertools.islice(_read(trace), limit or MAX_CALLS)
    parts = _tenant_parts(tenants)
    return list(hurry(assign(source, rng, parts, _class_parts(classes)), speed))


def _read(trace: Path) -> Iterator[Call]:
    from llmos.errors import InvalidRequest
    from llmos.kernel.sim.traces import read

    try:
        with trace.open(encoding="utf-8", newline="") as lines:
            yield from read(lines)
    except OSError as error:
        raise InvalidRequest(f"{trace} cannot be read: {error.strerror}", param="trace") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{trace} is not UTF-8 text", param="trace") from error


def _tenant_parts(text: str) -> list[float]:
    if not text:
        return []
    if "," not in text:
        (number,) = _numbers(text, "tenants", 1)
        if number != int(number) or not 1 <= number <= 100_000:
            raise typer.BadParameter("a number of tenants is from 1 to 100000")
        return [1.0] * int(number)
    return _numbers(text, "tenants")


def _class_parts(text: str) -> list[tuple[ServiceClass, float]]:
    from llmos.abi.principal import ServiceClass

    found = []
    for part in filter(None, text.split(",")):
        name, _, number = part.strip().partition("=")
        if name.upper() not in ServiceClass.__members__:
            known = ", ".join(kind.name.lower() for kind in ServiceClass)
            raise typer.BadParameter(f"class {name!r} is not one of {known}")
        found.append((ServiceClass[name.upper()], _numbers(number or "1", "classes", 1)[0]))
    if found and not sum(share for _, share in found):
        raise typer.BadParameter("classes: at least one proportion must be above 0")
    return found


def _numbers(text: str, name: str, count: int | None = None) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    wrong = not numbers or (count is not None and len(numbers) != count)
    if wrong or not all(0 <= number < 1e12 for number in numbers) or not sum(numbers):
        raise typer.BadParameter(f"{name}: {text!r} is not {count or 'some'} numbers above 0")
    return numbers


def _run(run: object, calls: list[Call]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    assert callable(run)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        run(calls)
        return
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ended,"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(calls))
        run(calls, lambda arrived, ended: progress.update(task, completed=ended))


def _show(report: Report) -> None:
    """On stdout: one table by class, then one line for each figure of the whole."""
    from llmos.cli.output import emit, emit_table

    headers = (
        *("CLASS", "CALLS", "FINISHED", "REFUSED", "FAILED", "PREEMPTED"),
        *("TTFT P50", "P95", "P99", "E2E P50", "P95", "P99"),
    )
    rows = []
    for kind in report.classes:
        times = (*(kind.ttft_s or (None,) * 3), *(kind.e2e_s or (None,) * 3))
        counts = (
            *(kind.num_calls, kind.num_finished, kind.num_refused),
            *(kind.num_failed, kind.num_preemptions),
        )
        rows.append(
            (kind.service_class, *map(str, counts), *("-" if t is None else _s(t) for t in times))
        )
    emit_table(headers, rows, "no calls")
    ends = ", ".join(f"{count} {end}" for end, count in report.ends.items())
    emit(
        f"\npolicy {report.policy}, {report.num_machines} x {report.num_slots} rows, "
        f"{report.num_calls} calls in {report.span_s:.1f} s: {ends}\n"
        f"fairness {report.jain:.4f} (Jain, {report.num_windows} windows of competing tenants), "
        f"{report.jain_total:.4f} over totals\n"
        f"utilisation {report.utilisation:.1%}, {report.tokens_per_s:.1f} tokens/s, "
        f"{report.num_preemptions} preemptions, {report.num_suspensions} suspensions\n"
        f"{report.num_loads} loads, {report.num_unparks} returns of parked models, "
        f"{report.num_evictions} evictions, {report.loading_s:.1f} s of loading\n"
        f"{_injected(report)}"
        f"trace hash {report.hash}"
    )


def _injected(report: Report) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in report.injected.items())
    return f"faults that came true: {counts}\n" if counts else ""


def _s(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _check_plot(path: Path) -> None:
    """Before the run, not after it."""
    from importlib.util import find_spec

    from llmos.errors import InvalidRequest, PluginError

    if find_spec("matplotlib") is None:
        raise PluginError("--plot needs matplotlib: pip install 'llmos[dev]'")
    if path.suffix not in PLOTS:
        known = ", ".join(PLOTS)
        raise InvalidRequest(f"{path} cannot be written: it must end in {known}", param="plot")
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InvalidRequest(f"{path} cannot be written: {what}", param="plot")


def _draw(report: Report, outcomes: list[Outcome], path: Path) -> None:
    """Cumulative time to first token and end to end, by class."""
    import matplotlib as mpl

    from llmos.errors import InvalidRequest

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = report.hash  # the same run gives the same bytes
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for kind in report.classes:
        ended = [
            o
            for o in outcomes
            if o.end == "finished" and o.call.service_class.name.lower() == kind.service_class
        ]
        first = sorted(((o.first_ns or 0) - o.arrived_ns) / 1e9 for o in ended)
        whole = sorted(((o.ended_ns or 0) - o.arrived_ns) / 1e9 for o in ended)
        for axis, values in zip(axes, (first, whole), strict=True):
            shares = [(i + 1) / len(values) for i in range(len(values))]
            axis.step(values, shares, label=kind.service_class, where="post")
    for axis, title in zip(axes, ("time to first token (s)", "end to end (s)"), strict=True):
        axis.set_xscale("log")
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of finished requests")
    axes[0].legend()
    figure.suptitle(
        f"{report.policy}, {report.num_machines} x {report.num_slots} rows: fairness "
        f"{report.jain:.3f}, utilisation {report.utilisation:.0%}",
        fontsize=10,
    )
    figure.tight_layout()
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be written: {error}", param="plot") from error
    finally:
        pyplot.close(figure)
