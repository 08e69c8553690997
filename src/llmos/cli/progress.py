"""Spinners and bars, on stderr and only on a terminal: output stays clean in a pipe."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from llmos.abi.registry import PullProgress


def stderr_console() -> Console:
    """Where people look at what goes on."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def spinner(what: str) -> Iterator[None]:
    """Shows that something goes on whose length is not known."""
    console = stderr_console()
    if not console.is_terminal:
        yield
        return
    from rich.text import Text

    with console.status(Text(what)):
        yield


@contextlib.contextmanager
def pull_bar() -> Iterator[Callable[[PullProgress], None]]:
    """A byte bar per phase of a pull; its value takes the reports."""
    console = stderr_console()
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from llmos.cli.text import one_line

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(report: PullProgress) -> None:
            if report.phase not in tasks:
                tasks[report.phase] = progress.add_task(report.phase, total=None)
            progress.update(
                tasks[report.phase],
                description=one_line(f"{report.phase} {report.file}"),
                completed=report.done_bytes,
                total=report.total_bytes or None,
            )

        yield show
