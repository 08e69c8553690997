"""Tasks: one thing done with every row of a file. Declare one, watch it, see what came of it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from nicegui import events, ui
from nicegui.elements.mixins.value_element import ValueElement

from llmos.abi.jobs import JobRecord
from llmos.console.frame import fail
from llmos.console.grid import Grid
from llmos.console.live import keep_live
from llmos.console.page import Page, Visit
from llmos.console.pages._result import ResultPane
from llmos.console.views import tasks as view
from llmos.console.views.talk import speakers
from llmos.console.widgets import Tag, icon_button, label
from llmos.errors import LLMOSError
from llmos.sdk.draw.life import tone

COLUMNS = (
    ("name", ""),
    ("state", ""),
    ("type", ""),
    ("model", "phone-no"),
    ("progress", ""),
    ("took", "num phone-no"),
)
MAX_LISTED = 100


class Tasks:
    """The page; `look` brings it up to date."""

    def __init__(self, visit: Visit, models: list[str]) -> None:
        self._visit = visit
        self._given: dict[str, Any] = {"type": "classify", "model": view.AUTO}
        self._file: Path | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="llmos-console-")
        ui.context.client.on_delete(self._folder.cleanup)
        self._form(models)
        texts = visit.texts
        columns = [
            {"name": name, "label": texts("task." + name), "look": look} for name, look in COLUMNS
        ]
        self._grid = Grid(visit, texts("nav.tasks"), columns, on_open=self._open)
        self._result = ResultPane(visit, self.refresh)

    def _form(self, models: list[str]) -> None:
        texts = self._visit.texts
        with Tag("section", classes="panel form"):
            Tag("h2", texts("task.new"))
            with Tag("div", classes="toolbar"):
                kinds = {kind: texts.find("kind." + kind, kind) for kind in view.KINDS}
                kind = ui.select(kinds, label=texts("task.type"), value="classify")
                self._keep("type", kind.props("outlined dense options-dense").classes("middle"))
                names = {view.AUTO: texts("task.auto"), **{name: name for name in models}}
                model = ui.select(names, label=texts("task.model"), value=view.AUTO)
                self._keep("model", model.props("outlined dense options-dense").classes("middle"))
                for name in ("labels", "to", "column", "name"):
                    field = ui.input(texts("task." + name)).props("outlined dense")
                    self._keep(name, field.classes("middle field-" + name))
            with Tag("div", classes="toolbar"):
                self._upload = ui.upload(
                    on_upload=self._take_file,
                    auto_upload=True,
                    max_file_size=self._visit.config.max_upload_bytes,
                    on_rejected=self._reject,
                ).classes("hidden-upload")
                ui.button(
                    texts("task.file"),
                    icon="o_upload_file",
                    on_click=lambda: self._upload.run_method("pickFiles"),
                ).props("outline no-caps")
                self._file_name = Tag("span", "", "dim")
                self._drop = icon_button("close", texts("task.file_drop"), self._drop_file)
                self._drop.set_visibility(False)
                items = ui.textarea(texts("task.items")).props("outlined dense autogrow rows=1")
                self._keep("items", items.classes("items"))
                self._items = items
                self._start = ui.button(
                    texts("task.start"), icon="o_play_arrow", on_click=self._submit
                ).props("unelevated no-caps")
        self._adapt()

    def _keep(self, name: str, field: ValueElement[Any]) -> None:
        def keep(event: events.ValueChangeEventArguments[Any]) -> None:
            self._given[name] = event.value
            if name == "type":
                self._adapt()

        field.on_value_change(keep)
        label(field, data_field=name)

    def _adapt(self) -> None:
        """Only what the kind of task takes is asked for."""
        kind = self._given["type"]
        wanted = {"labels": kind in {"classify", "extract"}, "to": kind == "translate"}
        ui.run_javascript(
            "".join(
                f"document.querySelector('.field-{name}')"
                f"?.classList.toggle('hidden', {str(not shown).lower()});"
                for name, shown in wanted.items()
            )
        )

    async def _take_file(self, event: events.UploadEventArguments) -> None:
        """Kept under its own name, of which nothing but the last part is taken."""
        name = Path(event.file.name).name or "input.txt"
        self._drop_file()
        self._file = Path(self._folder.name) / name
        await event.file.save(self._file)
        self._upload.reset()
        self._file_name.say(name)
        self._drop.set_visibility(True)
        self._items.set_visibility(False)

    def _reject(self) -> None:
        ui.notify(self._visit.texts("task.too_large"), type="warning", position="top")

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        self._file = None
        self._file_name.say("")
        self._drop.set_visibility(False)
        self._items.set_visibility(True)

    async def _submit(self) -> None:
        self._start.set_enabled(False)
        client = self._visit.client
        try:
            file_id = None
            if self._file is not None:
                file_id = (await client.files.put(self._file, purpose="batch")).id
            reply = await client.tasks.create(view.declaration(self._given, file_id))
        except LLMOSError as error:
            fail(self._visit, error)
        else:
            self._drop_file()
            self._items.set_value("")
            await self.refresh()
            await self._open(reply.job.job_id)
        finally:
            self._start.set_enabled(True)

    async def look(self) -> None:
        """The newest tasks, and the one that is open."""
        listed = await self._visit.client.tasks.list(limit=MAX_LISTED)
        now_ns = time.time_ns()
        self._grid.show([self._row(job, now_ns) for job in listed.jobs])
        await self._result.look()

    def _row(self, job: JobRecord, now_ns: int) -> dict[str, Any]:
        find, kind = self._visit.texts.find, view.kind_of(job)
        chip = {"chip": find("state." + job.state, job.state), "tone": tone(job.state)}
        return view.row(job, chip, find("kind." + kind, kind), now_ns)

    async def refresh(self) -> None:
        """Look at once."""
        try:
            await self.look()
        except LLMOSError as error:
            fail(self._visit, error)

    async def _open(self, job_id: str) -> None:
        await self._result.open(job_id)


async def build(visit: Visit) -> None:
    """The page."""
    models = list(speakers(await visit.client.models.list()))
    await keep_live(visit, Tasks(visit, models).look)


PAGE = Page(path="/tasks", name="tasks", icon="o_checklist", order=50, key="t", build=build)
