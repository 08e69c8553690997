"""Models: what is here, in which versions; what could be had; bringing one in."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from llmos.abi.registry import ModelVersion, PullProgress
from llmos.abi.syscall import ReplicaInfo
from llmos.console.frame import fail
from llmos.console.grid import Grid
from llmos.console.live import keep_live
from llmos.console.page import Page, Visit
from llmos.console.pane import Pane
from llmos.console.views import models as view
from llmos.console.widgets import Tag, label
from llmos.errors import LLMOSError, PermissionDenied
from llmos.library.catalogue import search
from llmos.sdk.draw.life import tone

COLUMNS = (
    ("model", ""),
    ("state", ""),
    ("kinds", "phone-no"),
    ("driver", "phone-no"),
    ("params", "num"),
    ("size", "num phone-no"),
    ("context", "num phone-no"),
    ("dtype", "phone-no"),
    ("license", "phone-no"),
)
KNOWN_COLUMNS = (
    ("name", ""),
    ("tasks", ""),
    ("languages", "phone-no"),
    ("params", "num"),
    ("license", "phone-no"),
    ("about", "wrap phone-no"),
)
VERBS = ("load", "unload", "pin", "unpin", "remove")


class Models:
    """The page; `look` brings it up to date."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._models: list[ModelVersion] = []
        self._opened: str | None = None
        texts = visit.texts
        self._pull_form()
        columns = [
            {"name": name, "label": texts("model." + name), "look": look} for name, look in COLUMNS
        ]
        self._grid = Grid(visit, texts("nav.models"), columns, on_open=self._open)
        with Tag("section", classes="known"):
            Tag("h2", texts("model.known"))
            search_field = ui.input(placeholder=texts("process.search")).props(
                "outlined dense clearable debounce=200"
            )
            label(search_field.classes("search"), aria_label=texts("model.known"))
            search_field.on_value_change(lambda e: self._find(e.value or ""))
            known = [
                {"name": name, "label": texts("model." + name), "look": look}
                for name, look in KNOWN_COLUMNS
            ]
            self._known = Grid(visit, texts("model.known"), known, on_open=self._want)
        self._words: list[str] = []
        self._pane = Pane(visit, texts("model.card"), self._forget)
        with self._pane.box:
            with Tag("div", classes="toolbar"):
                for verb in VERBS:
                    self._verb(verb)
            self._card = Tag("dl", classes="card")

    def _pull_form(self) -> None:
        texts = self._visit.texts
        with Tag("section", classes="panel"):
            with Tag("div", classes="toolbar"):
                self._source = ui.input(texts("model.source")).props("outlined dense")
                self._source.classes("source").on("keydown.enter", self._pull)
                self._name = ui.input(texts("model.as")).props("outlined dense")
                self._name.classes("middle")
                self._start = ui.button(
                    texts("model.pull"), icon="o_download", on_click=self._pull
                ).props("unelevated no-caps")
            self._progress = Tag("div", classes="progress", role="status")
            with self._progress:
                self._bar = ui.linear_progress(0, show_value=False).props("rounded")
                label(self._bar, aria_label=texts("model.pull"))
                self._said = Tag("span", "", "dim")
            self._progress.set_visibility(False)

    def _verb(self, verb: str) -> None:
        color = " color=negative" if verb == "remove" else ""
        button = ui.button(self._visit.texts("verb." + verb), on_click=lambda: self._do(verb))
        button.props("outline no-caps dense" + color)

    async def look(self) -> None:
        """Versions, and which of them are resident where one may know it."""
        client = self._visit.client
        self._models = await client.models.list()
        replicas: list[ReplicaInfo] = []
        with contextlib.suppress(PermissionDenied):  # the table is of use without
            replicas = await client.replicas()
        states, texts = view.states(replicas), self._visit.texts
        rows = []
        for model in view.ordered(self._models):
            state = states.get(model.ref, "")
            chip = {"chip": texts.find("state." + state, state), "tone": tone(state)}
            rows.append(view.row(model, state, chip))
        self._grid.show(rows)
        self._show_known()

    def _find(self, words: str) -> None:
        self._words = words.split()
        self._show_known()

    def _show_known(self) -> None:
        self._known.show(view.known(search(self._words), self._models))

    def _want(self, name: str) -> None:
        self._source.set_value(name)
        self._source.run_method("focus")

    async def _pull(self) -> None:
        if self._progress.visible:
            return
        self._busy(True)
        try:
            source = view.source_of(self._source.value or "")
            name = (self._name.value or "").strip() or None
            model = await self._visit.client.models.pull(source, name, progress=self._tell)
        except LLMOSError as error:
            fail(self._visit, error)
        else:
            self._source.set_value("")
            self._name.set_value("")
            ui.notify(
                self._visit.texts("model.pulled", model=model.ref), type="positive", position="top"
            )
        finally:
            self._busy(False)
        await self._refresh()

    def _busy(self, busy: bool) -> None:
        self._start.set_enabled(not busy)
        self._progress.set_visibility(busy)
        self._bar.set_value(0)
        self._said.say(self._visit.texts("phase.check") if busy else "")

    def _tell(self, progress: PullProgress) -> None:
        phase = self._visit.texts.find("phase." + progress.phase, progress.phase)
        words = view.progress_words(progress)
        self._said.say(f"{phase} · {words}" if words else phase)
        done = view.share(progress)
        if done is not None:
            self._bar.set_value(round(done, 2))

    async def _open(self, ref: str) -> None:
        try:
            model = await self._visit.client.models.show(ref)
        except LLMOSError as error:
            fail(self._visit, error)
            return
        self._opened = model.ref
        self._pane.title.say(model.ref)
        self._card.clear()
        with self._card:
            for name, value in view.card(model):
                Tag("dt", self._visit.texts("card." + name))
                Tag("dd", value)
        self._pane.show()

    def _forget(self) -> None:
        self._opened = None

    async def _do(self, verb: str) -> None:
        if self._opened is None:
            return
        models, ref = self._visit.client.models, self._opened
        calls: dict[str, Callable[[str], Awaitable[Any]]] = {
            "load": models.load,
            "unload": models.unload,
            "pin": models.pin,
            "unpin": models.unpin,
            "remove": models.remove,
        }
        try:
            await calls[verb](ref)
        except LLMOSError as error:
            fail(self._visit, error)
        else:
            ui.notify(self._visit.texts("model.done." + verb, model=ref), position="top")
            if verb == "remove":
                self._pane.close()
        await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self.look()
        except LLMOSError as error:
            fail(self._visit, error)


async def build(visit: Visit) -> None:
    """The page."""
    await keep_live(visit, Models(visit).look)


PAGE = Page(path="/models", name="models", icon="o_view_in_ar", order=40, key="m", build=build)
