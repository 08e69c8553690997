"""Progress while one waits: a bar on a terminal, in a notebook's cell, or plain lines in a pipe.

All of it goes to stderr, so that output stays clean; a notebook shows it in the cell. A bar takes
reports of how far it is and never asks for them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from llmos.abi.jobs import JobProgress, JobRecord, JobState
from llmos.abi.registry import PullProgress
from llmos.sdk.notebook import Cell, Place, place_of

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_S = 10.0
"""In a pipe a line is written after every tenth of the whole, or after so long."""


class Bar(Protocol):
    """Shows one amount. `total` 0: nobody knows the whole."""

    def show(self, what: str, done: float, total: float, unit: str) -> None: ...

    def close(self) -> None: ...


def text_of(what: str, done: float, total: float, unit: str, took_s: float) -> str:
    """As a line: what, how far, how fast, how long still."""
    from llmos.sdk.draw import amounts
    from llmos.sdk.draw.columns import one_line
    from llmos.sdk.draw.words import plain

    def amount(number: float) -> str:
        return amounts.size(number) if unit == "bytes" else f"{number:g}"

    parts = [one_line(plain(what))]
    if total:
        parts.append(f"{100 * done / total:.0f} %")
    whole = f"{amount(done)} of {amount(total)}" if total else amount(done)
    parts.append(whole if unit == "bytes" else f"{whole} {unit}".rstrip())
    if done and took_s > 0:
        speed = done / took_s
        parts.append(f"{amounts.size(speed) if unit == 'bytes' else amounts.rate(speed)}/s")
        if total > done:
            parts.append(f"{amounts.span((total - done) / speed)} left")
    return "  ".join(parts)


class NoBar:
    """Nobody looks."""

    def show(self, what: str, done: float, total: float, unit: str) -> None:
        pass

    def close(self) -> None:
        pass


class LineBar:
    """Whole lines, few of them."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._began_s = clock()
        self._last: tuple[str, int] | None = None
        self._written_s = self._began_s

    def show(self, what: str, done: float, total: float, unit: str) -> None:
        now_s = self._clock()
        step = (what, int(10 * done / total) if total else 0)
        if step == self._last and now_s - self._written_s < LINE_S:
            return
        self._last, self._written_s = step, now_s
        print(text_of(what, done, total, unit, now_s - self._began_s), file=self._file, flush=True)

    def close(self) -> None:
        pass


class CellBar:
    """A notebook's."""

    def __init__(self) -> None:
        self._cell = Cell()
        self._began_s = time.monotonic()
        self._last: tuple[str, float, float, str] | None = None

    def show(self, what: str, done: float, total: float, unit: str) -> None:
        self._last = what, done, total, unit
        if self._cell.is_due():
            self._draw()

    def close(self) -> None:
        if self._last is not None:
            self._draw()

    def _draw(self) -> None:
        from llmos.sdk.draw.sheet import bar, sheet

        assert self._last is not None
        what, done, total, unit = self._last
        text = text_of(what, done, total, unit, time.monotonic() - self._began_s)
        self._cell.draw(sheet(bar(done / total if total else None, text)), text)


class RichBar:
    """A terminal's, by rich."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._task: Any = None
        self._began_s = time.monotonic()

    def show(self, what: str, done: float, total: float, unit: str) -> None:
        text = text_of(what, done, total, unit, time.monotonic() - self._began_s)
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=None)
        self._progress.update(self._task, description=text, completed=done, total=total or None)

    def close(self) -> None:
        self._progress.stop()


def make_bar(wish: bool, file: TextIO | None = None) -> Bar:
    """The one that suits where its words are seen."""
    if not wish:
        return NoBar()
    file = sys.stderr if file is None else file
    place = place_of(file)
    if place is Place.NOTEBOOK:
        return CellBar()
    if place is Place.TERMINAL:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        except ImportError:  # the sdk alone
            return LineBar(file)
        console = Console(file=file, markup=False, highlight=False, emoji=False)
        columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False))
        return RichBar(Progress(*columns, console=console))
    return LineBar(file)


class JobBar:
    """Moves a bar by how a job stands. A context manager: the bar is left as it was last."""

    def __init__(self, name: str, bar: Bar) -> None:
        self._name = name
        self._bar = bar

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def look(self, job: JobRecord) -> None:
        """How far it is, or how it ended."""
        progress = job.progress or JobProgress()
        what = progress.what if job.state is JobState.RUNNING else job.state.value
        name = f"{self._name} {what}".rstrip()
        self._bar.show(name, progress.done, progress.total, progress.unit)


def job_bar(job_id: str, wish: bool) -> JobBar:
    """Of a job, by the end of its id: its beginning is time, and much alike."""
    kind, _, rest = job_id.partition("_")
    return JobBar(f"{kind}_…{rest[-8:]}" if len(rest) > 12 else job_id, make_bar(wish))


class PullBar:
    """What `progress` of a pull can be: it takes the reports. A context manager, as `JobBar`."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def __call__(self, report: PullProgress) -> None:
        what = f"{report.phase} {report.file}".rstrip()
        self._bar.show(what, report.done_bytes, report.total_bytes, "bytes")
