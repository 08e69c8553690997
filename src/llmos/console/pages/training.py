"""Training: runs, their curves side by side as they grow, and what the model said on the way."""

from __future__ import annotations

import time

from nicegui import ui

from llmos.abi.jobs import ENDED, JobRecord
from llmos.console.frame import fail
from llmos.console.grid import Grid
from llmos.console.live import keep_live
from llmos.console.page import Page, Visit
from llmos.console.views import runs
from llmos.console.views.tasks import done_share
from llmos.console.widgets import Tag, drawing
from llmos.errors import LLMOSError
from llmos.sdk.draw import amounts, curves
from llmos.sdk.draw.charts import legend, line_chart
from llmos.sdk.draw.curves import RunLog
from llmos.sdk.draw.life import tone

COLUMNS = (
    ("name", ""),
    ("state", ""),
    ("program", "phone-no"),
    ("progress", ""),
    ("newest", "phone-no"),
    ("took", "num phone-no"),
)
KINDS = ("metric", "output")
MAX_RUNS = 100
MAX_COMPARED = 6
MAX_CHARTS = 8
EVENTS_AT_ONCE = 1000


class Training:
    """The page; `look` brings it up to date. What is chosen is compared."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._jobs: dict[str, JobRecord] = {}
        self._logs: dict[str, RunLog] = {}
        self._chosen: list[str] = []
        self._drawn: dict[str, str] = {}
        texts = visit.texts
        columns = [
            {"name": name, "label": texts("run." + name), "look": look} for name, look in COLUMNS
        ]
        self._grid = Grid(
            visit, texts("nav.training"), columns, on_choose=self._choose, on_open=self._only
        )
        self._hint = Tag("p", texts("run.hint"), "dim")
        self._legend = drawing()
        self._charts = Tag("div", classes="charts")
        self._places: dict[str, ui.html] = {}
        with Tag("section", classes="panel") as self._samples:
            Tag("h2", texts("run.samples"))
            self._said = Tag("ol", classes="samples")
        self._samples.set_visibility(False)
        self._shown_samples: list[str] = []

    async def look(self) -> None:
        """Runs, and what is new in the logs of those that are compared."""
        listed = await self._visit.client.jobs.list(limit=MAX_RUNS)
        self._jobs = {job.job_id: job for job in runs.runs(listed.jobs)}
        if not self._chosen and self._jobs:
            self._chosen = [next(iter(self._jobs))]
        self._chosen = [one for one in self._chosen if one in self._jobs]
        for job_id in self._chosen:
            await self._read(job_id)
        now_ns = time.time_ns()
        self._grid.show([self._row(job, now_ns) for job in self._jobs.values()])
        self._grid.tell(chosen=list(self._chosen))
        self._hint.set_visibility(not self._jobs)
        self._draw()

    async def _read(self, job_id: str) -> None:
        log = self._logs.setdefault(job_id, RunLog())
        events = self._visit.client.jobs.events
        while True:
            found = await events(job_id, after=log.after, limit=EVENTS_AT_ONCE, kinds=KINDS)
            log.feed(found)
            if len(found) < EVENTS_AT_ONCE:
                return

    def _draw(self) -> None:
        chosen = [(self._name(one), self._logs[one]) for one in self._chosen if one in self._logs]
        names = curves.names_of(log for _, log in chosen)[:MAX_CHARTS]
        if list(self._places) != names:
            self._charts.clear()
            self._places, self._drawn = {}, {}
            with self._charts:
                for name in names:
                    with Tag("section", classes="panel"):
                        Tag("h2", name)
                        self._places[name] = drawing()
        for name, place in self._places.items():
            chart = line_chart(
                curves.lines_of(name, chosen), name, from_zero=False, y_text=lambda y: f"{y:.3g}"
            )
            self._put(name, place, chart)
        self._put("", self._legend, legend([name for name, _ in chosen]) if chosen else "")
        self._show_samples([log for _, log in chosen])

    def _put(self, name: str, place: ui.html, markup: str) -> None:
        if self._drawn.get(name) != markup:
            self._drawn[name] = markup
            place.set_content(markup)

    def _show_samples(self, logs: list[RunLog]) -> None:
        said = [
            f"{step}: {runs.sample_text(value)}"
            for log in logs
            for step, value in reversed(log.samples)
        ]
        if said != self._shown_samples:
            self._shown_samples = said
            self._said.clear()
            with self._said:
                for text in said:
                    Tag("li", text)
        self._samples.set_visibility(bool(said))

    def _name(self, job_id: str) -> str:
        job = self._jobs[job_id]
        return f"{job.spec.name or job.spec.program} …{job_id[-4:]}"

    def _row(self, job: JobRecord, now_ns: int) -> dict[str, object]:
        state = self._visit.texts.find("state." + job.state, job.state)
        share = 1.0 if job.state in ENDED and job.state == "succeeded" else done_share(job)
        log = self._logs.get(job.job_id)
        began_ns = job.started_ns
        end_ns = job.ended_ns or now_ns
        bar = {"bar": round(share, 3), "text": f"{100 * share:.0f} %"} if share is not None else "–"
        return {
            "id": job.job_id,
            "cells": {
                "name": {"text": self._name(job.job_id), "title": job.job_id},
                "state": {"chip": state, "tone": tone(job.state)},
                "program": job.spec.program,
                "progress": bar,
                "newest": (runs.last_values(log) if log else "") or "–",
                "took": "–" if began_ns is None else amounts.span((end_ns - began_ns) / 1e9),
            },
        }

    async def _choose(self, ids: list[str]) -> None:
        self._chosen = ids[-MAX_COMPARED:]
        await self._refresh()

    async def _only(self, job_id: str) -> None:
        await self._choose([job_id])

    async def _refresh(self) -> None:
        try:
            await self.look()
        except LLMOSError as error:
            fail(self._visit, error)


async def build(visit: Visit) -> None:
    """The page."""
    await keep_live(visit, Training(visit).look)


PAGE = Page(
    path="/training", name="training", icon="o_model_training", order=60, key="r", build=build
)
