"""One task in full: how far it is, what was found, its first rows, its files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from llmos.abi.jobs import ENDED
from llmos.abi.syscall_jobs import JobReply
from llmos.console.downloads import PREFIX
from llmos.console.frame import fail
from llmos.console.grid import Grid
from llmos.console.page import Visit
from llmos.console.pane import Pane
from llmos.console.views import tasks as view
from llmos.console.widgets import Tag, drawing, label
from llmos.errors import LLMOSError
from llmos.sdk.draw.charts import bars


class _Enough(Exception):
    """The preview has what it shows."""


class ResultPane:
    """`changed` is called when something was done to the task."""

    def __init__(self, visit: Visit, changed: Callable[[], Awaitable[None]]) -> None:
        self._visit = visit
        self._changed = changed
        self._job_id: str | None = None
        self._is_over = False
        texts = visit.texts
        self._pane = Pane(visit, texts("task.result"), self._forget)
        with self._pane.box:
            self._bar = ui.linear_progress(0, show_value=False).props("rounded")
            label(self._bar, aria_label=texts("task.progress"))
            self._facts = Tag("dl", classes="card")
            with Tag("div", classes="toolbar"):
                self._cancel = ui.button(texts("task.cancel"), on_click=self._end)
                self._cancel.props("outline no-caps dense color=negative")
                self._files = Tag("div", classes="toolbar")
            self._chart = drawing(classes="labels-chart")
            self._rows = Tag("div", classes="result-rows")

    async def open(self, job_id: str) -> None:
        """Show this one."""
        self._job_id, self._is_over = job_id, False
        self._files.clear()
        self._rows.clear()
        self._chart.set_content("")
        try:
            await self.look()
        except LLMOSError as error:
            fail(self._visit, error)

    async def look(self) -> None:
        """Bring it up to date until it is over. Raises LLMOSError."""
        if self._job_id is None or self._is_over:
            return
        asked = self._job_id
        reply = await self._visit.client.tasks.show(asked)
        if asked != self._job_id:
            return
        self._show(reply)
        if reply.job.state in ENDED:
            self._is_over = True
            await self._show_results(reply)

    def _forget(self) -> None:
        self._job_id = None

    def _show(self, reply: JobReply) -> None:
        job, texts = reply.job, self._visit.texts
        kind = view.kind_of(job)
        self._pane.title.say(job.spec.name or texts.find("kind." + kind, kind))
        self._bar.set_value(round(view.done_share(job) or 0.0, 3))
        self._cancel.set_visibility(job.state not in ENDED)
        self._facts.clear()
        with self._facts:
            Tag("dt", texts("process.state"))
            Tag("dd", texts.find("state." + job.state, job.state))
            for name, value in view.facts(reply):
                Tag("dt", texts("task.fact." + name))
                Tag("dd", value)
        self._pane.show()

    async def _show_results(self, reply: JobReply) -> None:
        job, texts = reply.job, self._visit.texts
        if labels := view.labels_of(job):
            self._chart.set_content(bars(labels, texts("task.found")))
        names = view.files_of(job)
        with self._files:
            for name in names:
                href = f"{PREFIX}/os/v1/tasks/{job.job_id}/result?format={name}"
                Tag("a", name, "file", href=href, download="")
        if view.FORMATS[0] in names:
            await self._show_rows(job.job_id)

    async def _show_rows(self, job_id: str) -> None:
        data = bytearray()

        def take(piece: bytes) -> None:
            data.extend(piece)
            if len(data) >= view.MAX_PREVIEW_BYTES:
                raise _Enough

        try:
            await self._visit.client.tasks.result(job_id, take, view.FORMATS[0])
        except _Enough:
            pass
        except LLMOSError as error:
            fail(self._visit, error)
            return
        columns, rows = view.preview(bytes(data))
        with self._rows:
            heads = [{"name": name, "label": name, "look": "wrap"} for name in columns]
            Grid(self._visit, self._visit.texts("task.result"), heads).show(rows)

    async def _end(self) -> None:
        if self._job_id is None:
            return
        try:
            await self._visit.client.tasks.cancel(self._job_id)
        except LLMOSError as error:
            fail(self._visit, error)
        await self._changed()
