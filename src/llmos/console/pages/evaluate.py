"""Evaluate: a leaderboard of measured models, what got worse, what was taken for what."""

from __future__ import annotations

from llmos.abi.evals import EVALUATE
from llmos.abi.jobs import JobRecord
from llmos.console.frame import fail
from llmos.console.grid import Grid
from llmos.console.live import keep_live
from llmos.console.page import Page, Visit
from llmos.console.pane import Pane
from llmos.console.views import evals
from llmos.console.widgets import Tag, drawing
from llmos.errors import LLMOSError
from llmos.sdk.draw.life import tone
from llmos.sdk.draw.scores import matrix, read_report
from llmos.sdk.look import curve_charts

COLUMNS = (
    ("name", ""),
    ("state", ""),
    ("model", ""),
    ("score", "phone-no"),
    ("value", "num"),
    ("against", "phone-no"),
    ("change", "phone-no"),
    ("examples", "num phone-no"),
)
SCORES = (("score", ""), ("value", "num"), ("against", "num"), ("change", "num"))
MAX_LISTED = 200


class Evaluate:
    """The page; `look` brings it up to date."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._jobs: dict[str, JobRecord] = {}
        texts = visit.texts
        self._grid = Grid(visit, texts("nav.evaluate"), _columns(visit, COLUMNS), on_open=self.open)
        Tag("p", texts("eval.hint"), "dim")
        self._pane = Pane(visit, texts("nav.evaluate"), lambda: None)
        with self._pane.box:
            self._model = Tag("p", "", "dim")
            self._scores = Grid(visit, texts("eval.scores"), _columns(visit, SCORES))
            self._matrix = drawing(classes="matrix-box")

    async def look(self) -> None:
        """The evaluations there are."""
        listed = await self._visit.client.jobs.list(program=EVALUATE, limit=MAX_LISTED)
        found = evals.evaluations(listed.jobs)
        self._jobs = {job.job_id: job for job in found}
        texts = self._visit.texts
        words = {"worse": texts("eval.worse"), "kept": texts("eval.kept")}
        rows = []
        for job in found:
            state = texts.find("state." + job.state, job.state)
            chip = {"chip": state, "tone": tone(job.state)}
            rows.append({"id": job.job_id, "cells": evals.cells(job, chip, words)})
        self._grid.show(rows)

    async def open(self, job_id: str) -> None:
        """One in full."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        outputs = job.outputs or {}
        self._pane.title.say(job.spec.name or f"…{job_id[-8:]}")
        self._model.say(str(outputs.get("model") or job.reason))
        self._scores.show(evals.scores(job))
        self._matrix.set_content("")
        self._pane.show()
        file_id = evals.report_of(job)
        if file_id is None:
            return
        data = bytearray()
        try:
            await self._visit.client.files.get(file_id, data.extend)
        except LLMOSError as error:
            fail(self._visit, error)
            return
        report = read_report(bytes(data))
        title = self._visit.texts("eval.confusion")
        self._matrix.set_content(matrix(report, title) + curve_charts(report))


def _columns(visit: Visit, columns: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": n, "label": visit.texts("eval." + n), "look": look} for n, look in columns]


async def build(visit: Visit) -> None:
    """The page."""
    await keep_live(visit, Evaluate(visit).look)


PAGE = Page(path="/evaluate", name="evaluate", icon="o_leaderboard", order=70, key="e", build=build)
