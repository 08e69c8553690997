"""Processes: everything that runs, waits or has lately ended; and why it is where it is."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from llmos.abi.syscall import ProcessInfo
from llmos.console.frame import fail
from llmos.console.grid import Grid
from llmos.console.live import keep_live
from llmos.console.page import Page, Visit
from llmos.console.pages._story import StoryPane
from llmos.console.views.processes import GROUPS, Query, Shown, select, short
from llmos.console.widgets import Tag, icon_button, label
from llmos.errors import LLMOSError
from llmos.sdk.draw import amounts
from llmos.sdk.draw.life import NS, tone

COLUMNS = (
    ("process", ""),
    ("state", ""),
    ("model", ""),
    ("owner", "phone-no"),
    ("class", "phone-no"),
    ("tokens", "num"),
    ("progress", "phone-no"),
    ("age", "num"),
    ("took", "num phone-no"),
)
VERBS = ("suspend", "resume", "kill")


class Processes:
    """The page; `look` brings it up to date."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._query = Query()
        self._all: list[ProcessInfo] = []
        self._chosen: list[str] = []
        self._group = ""
        self._bar()
        columns = [
            {"name": name, "label": visit.texts("process." + name), "sorts": True, "look": look}
            for name, look in COLUMNS
        ]
        self._grid = Grid(
            visit,
            visit.texts("nav.processes"),
            columns,
            on_sort=self._sort,
            on_choose=self._choose,
            on_open=self.open,
        )
        self._pages()
        self._story = StoryPane(visit, self.refresh)

    def _bar(self) -> None:
        texts = self._visit.texts
        with Tag("div", classes="toolbar"):
            groups = {group: texts("group." + group) for group in GROUPS}
            ui.toggle(groups, value="live", on_change=lambda e: self._see(e.value)).props(
                "no-caps unelevated dense toggle-color=primary"
            ).classes("groups")
            search = ui.input(placeholder=texts("process.search")).props(
                "outlined dense clearable debounce=200"
            )
            label(search.classes("search"), aria_label=texts("process.search"), data_write="1")
            search.on_value_change(lambda e: self._find(e.value or ""))
            ui.space()
            self._verbs = [
                ui.button(texts("verb." + verb), on_click=lambda verb=verb: self._do(verb)).props(
                    "outline no-caps dense" + (" color=negative" if verb == "kill" else "")
                )
                for verb in VERBS
            ]
        self._allow()

    def _pages(self) -> None:
        texts = self._visit.texts
        with Tag("div", classes="pager"):
            self._where = Tag("span", "", role="status")
            self._back = icon_button("chevron_left", texts("grid.back"), lambda: self._turn(-1))
            self._next = icon_button("chevron_right", texts("grid.next"), lambda: self._turn(1))

    async def look(self) -> None:
        """All that the group asks of the server; what is sent to the page is one page of it."""
        group = self._query.group
        self._all = await self._visit.client.processes.list(state="" if group == "all" else group)
        self._group = group
        self._draw()
        await self._story.look()

    async def refresh(self) -> None:
        """Look at once: somebody did something."""
        try:
            await self.look()
        except LLMOSError as error:
            fail(self._visit, error)

    async def open(self, process_id: str) -> None:
        """Show the story of one."""
        await self._story.open(process_id)

    def _draw(self) -> None:
        now_ns = time.time_ns()
        shown = select(self._all, self._query, now_ns)
        self._grid.show([_row(self._visit, info, now_ns) for info in shown.rows])
        here = {info.process_id for info in shown.rows}
        self._chosen = [one for one in self._chosen if one in here]
        sort = (self._query.sort, self._query.descending)
        self._grid.tell(sort=sort, chosen=list(self._chosen))
        self._allow()
        self._say_where(shown)

    def _say_where(self, shown: Shown) -> None:
        texts = self._visit.texts
        last = shown.first + len(shown.rows) - 1
        count = amounts.count
        words = texts("grid.range", first=shown.first, last=last, total=count(shown.total))
        self._where.say(words if shown.total else "")
        self._back.set_enabled(shown.number > 0)
        self._next.set_enabled(last < shown.total)

    def _allow(self) -> None:
        for button in self._verbs:
            button.set_enabled(bool(self._chosen))

    async def _see(self, group: str) -> None:
        self._query = self._query.with_group(group)
        await self.refresh()

    def _find(self, words: str) -> None:
        self._query = self._query.with_words(words)
        self._draw()

    def _sort(self, name: str, descending: bool) -> None:
        self._query = self._query.sorted_by(name, descending)
        self._draw()

    def _turn(self, step: int) -> None:
        self._query = self._query.turned(step)
        self._draw()

    def _choose(self, ids: list[str]) -> None:
        self._chosen = ids
        self._grid.tell(chosen=ids)
        self._allow()

    async def _do(self, verb: str) -> None:
        """To all that are chosen; the first refusal is told, the others are tried all the same."""
        client, refused = self._visit.client.processes, None
        call = {"suspend": client.suspend, "resume": client.resume, "kill": client.kill}[verb]
        for process_id in list(self._chosen):
            try:
                await call(process_id)
            except LLMOSError as error:
                refused = refused or error
        if refused is not None:
            fail(self._visit, refused)
        await self.refresh()


def _row(visit: Visit, info: ProcessInfo, now_ns: int) -> dict[str, Any]:
    texts = visit.texts
    state = texts.find("state." + info.state, info.state)
    progress: Any = "–"
    if info.progress is not None:
        progress = {"bar": round(info.progress, 3), "text": f"{100 * info.progress:.0f} %"}
    took_ns = (info.ended_ns or now_ns) - (info.started_ns or now_ns)
    nice = f" {info.nice:+d}" if info.nice else ""
    return {
        "id": info.process_id,
        "cells": {
            "process": {"text": short(info.process_id), "look": "mono", "title": info.process_id},
            "state": {"chip": state, "tone": tone(info.state)},
            "model": {"text": info.name or info.model, "title": info.model},
            "owner": info.principal,
            "class": texts("class." + info.service_class.name.lower()) + nice,
            "tokens": " + ".join(map(amounts.count, (info.prompt_tokens, info.completion_tokens))),
            "progress": progress,
            "age": amounts.span(max(0, now_ns - info.created_ns) // NS),
            "took": "–" if info.started_ns is None else amounts.span(took_ns / NS),
        },
    }


async def build(visit: Visit) -> None:
    """The page; `?id=` opens the story of one."""
    page = Processes(visit)
    await keep_live(visit, page.look)
    if wanted := ui.context.client.request.query_params.get("id"):
        await page.open(wanted)


PAGE = Page(path="/processes", name="processes", icon="o_memory", order=30, key="p", build=build)
