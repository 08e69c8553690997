"""Streams that are watched: drawn again as they grow, or written piece by piece."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import Any, Protocol, TextIO

from llmos.abi.jobs import JobEvent
from llmos.errors import ServerUnreachable
from llmos.sdk.answer import Answer
from llmos.sdk.draw.columns import one_line, visible
from llmos.sdk.draw.curves import RunLog
from llmos.sdk.draw.sheet import said, sheet
from llmos.sdk.draw.words import plain
from llmos.sdk.look import Run, charts_of
from llmos.sdk.notebook import Cell, is_notebook
from llmos.sdk.results import Chunk
from llmos.sdk.shown import Job

MAX_LINES = 50
"""Of a log that has no end."""


class View(Protocol):
    """What grows. `feed` gives the text to write for a piece, on a terminal."""

    def feed(self, item: Any) -> str: ...

    def html(self) -> str: ...

    def text(self) -> str: ...

    def result(self) -> Any: ...


class AnswerView:
    """Of chunks."""

    def __init__(self) -> None:
        self._answer = Answer(time.monotonic())

    def feed(self, item: Chunk) -> str:
        self._answer.feed(item, time.monotonic())
        end = "\n" if item.usage is not None else ""
        return visible(item.text) + end

    def html(self) -> str:
        return self._answer._repr_html_()

    def text(self) -> str:
        return self._answer.text

    def result(self) -> Answer:
        return self._answer


class LogView:
    """Of a job's log."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._log = RunLog()

    def feed(self, item: JobEvent | Job) -> str:
        if isinstance(item, Job):
            self._run = Run(item.job, self._log)
            return f"{one_line(repr(self._run))}\n"
        self._log.feed([item])
        told = "  ".join(f"{name} {value}" for name, value in item.value.items())
        return one_line(f"{item.kind}  {told}") + "\n"

    def html(self) -> str:
        if self._run is not None:
            return self._run._repr_html_()
        return sheet(charts_of(self._log))

    def text(self) -> str:
        return repr(self._run)

    def result(self) -> Run:
        if self._run is None:
            raise ServerUnreachable("the log ended without its job")
        return self._run


class LinesView:
    """Of the server's own log: its newest lines."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=MAX_LINES)

    def feed(self, item: dict[str, Any]) -> str:
        self._entries.append(item)
        return f"{one_line(plain(self._line(item)))}\n"

    def _line(self, entry: dict[str, Any]) -> str:
        return "  ".join(str(entry.get(name, "")) for name in ("time", "level", "message"))

    def html(self) -> str:
        return sheet(*(said(self._line(entry)) for entry in self._entries))

    def text(self) -> str:
        return "\n".join(map(self._line, self._entries))

    def result(self) -> list[dict[str, Any]]:
        return list(self._entries)


def view_of(item: Any) -> View:
    """By what comes first."""
    if isinstance(item, Chunk):
        return AnswerView()
    return LinesView() if isinstance(item, dict) else LogView()


class Screen:
    """Where a view is seen: a notebook's cell, or a file that text is written to."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stdout if file is None else file
        self._cell = Cell() if is_notebook() else None
        self._view: View | None = None

    def feed(self, item: Any) -> None:
        """One more piece."""
        self._view = view_of(item) if self._view is None else self._view
        text = self._view.feed(item)
        if self._cell is None:
            self._file.write(text)
            self._file.flush()
        elif self._cell.is_due():
            self._draw()

    def end(self) -> Any:
        """All of it."""
        if self._view is None:
            raise ServerUnreachable("the stream ended before anything came")
        if self._cell is not None:
            self._draw()
        return self._view.result()

    def _draw(self) -> None:
        assert self._cell is not None and self._view is not None
        self._cell.draw(self._view.html(), self._view.text())


def show(items: Iterable[Any], file: TextIO | None = None) -> Any:
    """To its end."""
    screen = Screen(file)
    for item in items:
        screen.feed(item)
    return screen.end()


async def show_async(items: AsyncIterable[Any], file: TextIO | None = None) -> Any:
    """To its end."""
    screen = Screen(file)
    async for item in items:
        screen.feed(item)
    return screen.end()
