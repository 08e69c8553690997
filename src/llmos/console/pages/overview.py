"""Overview: is the machine well, and what does it do?"""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from llmos.abi.memory import MemoryInfo
from llmos.abi.syscall import ReplicaInfo, StatusInfo
from llmos.console.grid import Grid
from llmos.console.live import keep_live
from llmos.console.page import Page, Visit
from llmos.console.views.overview import CLASSES, SpeedLog, alerts, ledger
from llmos.console.widgets import Tag, drawing
from llmos.sdk.draw import amounts
from llmos.sdk.draw.charts import Line, line_chart, part_list, stacked_bar
from llmos.sdk.draw.life import tone

TILES = ("speed", "running", "waiting", "memory", "uptime")


class Overview:
    """The page; `look` brings it up to date."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._speeds = SpeedLog()
        self._drawn: dict[str, str] = {}
        texts = visit.texts
        self._alerts = Tag("div", classes="alerts", role="status")
        self._shown_alerts: list[tuple[str, str]] | None = None
        with Tag("div", classes="tiles"):
            self._tiles = {name: _tile(texts("overview." + name)) for name in TILES}
        with Tag("div", classes="panels"):
            with Tag("section", classes="panel wide"):
                Tag("h2", texts("overview.throughput"))
                self._chart = drawing()
            with Tag("section", classes="panel"):
                Tag("h2", texts("overview.queue"))
                self._queue = drawing()
        with Tag("section", classes="panel"):
            Tag("h2", texts("overview.ledger"))
            self._memory = drawing(classes="ledgers")
        with Tag("section", classes="panel flush"):
            Tag("h2", texts("overview.resident"))
            columns = [
                {"name": name, "label": texts("replica." + name), "look": look}
                for name, look in (
                    ("model", ""),
                    ("state", ""),
                    ("rows", "num"),
                    ("waits", "num"),
                    ("memory", "num"),
                    ("dtype", "phone-no"),
                    ("driver", "phone-no"),
                    ("kept", "phone-no"),
                )
            ]
            self._replicas = Grid(visit, texts("overview.resident"), columns)

    async def look(self) -> None:
        """Raises PermissionDenied for a key that may not see the system."""
        client = self._visit.client
        status = await client.status()
        memory, replicas = await client.memory(), await client.replicas()
        now_s = time.monotonic()
        speed = self._speeds.look(status, now_s)
        self._show_tiles(status, speed)
        self._show_alerts(status, memory, replicas)
        self._show_charts(status, memory, now_s)
        self._replicas.show([_row(self._visit, replica) for replica in replicas])

    def _show_tiles(self, status: StatusInfo, speed: float | None) -> None:
        share = status.memory_reserved_bytes / max(1, status.memory_budget_bytes)
        shown = {
            "speed": "–" if speed is None else amounts.rate(speed),
            "running": amounts.count(status.num_running),
            "waiting": amounts.count(status.num_queued),
            "memory": f"{100 * share:.0f} %",
            "uptime": _uptime(time.time_ns() - status.started_ns),
        }
        for name, text in shown.items():
            self._tiles[name].say(text)

    def _show_alerts(
        self, status: StatusInfo, memory: MemoryInfo, replicas: list[ReplicaInfo]
    ) -> None:
        texts = self._visit.texts
        found = [(a.level, texts(a.key, **a.fields)) for a in alerts(status, memory, replicas)]
        if found == self._shown_alerts:
            return
        self._shown_alerts = found
        self._alerts.clear()
        with self._alerts:
            if not found:
                Tag("p", texts("alert.none"), "alert good")
            for level, text in found:
                Tag("p", text, f"alert {level}")

    def _show_charts(self, status: StatusInfo, memory: MemoryInfo, now_s: float) -> None:
        texts = self._visit.texts
        line = Line(texts("overview.throughput"), list(self._speeds.points))
        chart = line_chart(
            [line],
            texts("overview.throughput"),
            x_text=lambda x: f"−{amounts.span(round(now_s - x))}" if now_s - x >= 1 else "",
            filled=True,
        )
        self._draw("chart", self._chart, chart)
        self._draw("queue", self._queue, _queue(self._visit, status.waiting))
        ledgers = []
        for device in memory.devices:
            parts = ledger(device, texts("overview.free"), texts("overview.others"))
            budget = amounts.size(device.budget_bytes)
            title = texts("overview.device", device=device.device, budget=budget)
            bar = stacked_bar(parts, device.budget_bytes, title)
            heading = (
                f"<h3>{texts.markup('overview.device', device=device.device, budget=budget)}</h3>"
            )
            ledgers.append(f"<div>{heading}{bar}{part_list(parts)}</div>")
        self._draw("memory", self._memory, "".join(ledgers))

    def _draw(self, name: str, where: ui.html, markup: str) -> None:
        """Send a drawing where it is another one."""
        if self._drawn.get(name) != markup:
            self._drawn[name] = markup
            where.set_content(markup)


def _tile(name: str) -> Tag:
    with Tag("div", classes="tile"):
        value = Tag("strong", "–")
        Tag("span", name)
    return value


def _uptime(span_ns: int) -> str:
    """In whole minutes once there is one: it need not be told every second."""
    whole_s = max(0, span_ns) // 1_000_000_000
    return amounts.span(whole_s - whole_s % 60 if whole_s >= 60 else max(1, whole_s))


def _queue(visit: Visit, waiting: dict[str, int]) -> str:
    """Bars of the classes, the most urgent first."""
    most = max([*waiting.values(), 1])
    rows = "".join(
        f'<div class="label"><span>{visit.texts.markup("class." + name)}</span>'
        f'<i><b style="width:{100 * waiting.get(name, 0) / most:.1f}%"></b></i>'
        f"<em>{waiting.get(name, 0)}</em></div>"
        for name in CLASSES
    )
    return f'<div class="labels">{rows}</div>'


def _row(visit: Visit, replica: ReplicaInfo) -> dict[str, Any]:
    texts = visit.texts
    kept = "–"
    if replica.pinned:
        kept = texts("replica.pinned")
    elif replica.keep_alive_s is not None and replica.keep_alive_s < 86_400 * 365:
        kept = amounts.span(replica.keep_alive_s)
    state = texts.find("state." + replica.state, replica.state)
    return {
        "id": replica.replica_id,
        "cells": {
            "model": replica.model,
            "state": {"chip": state, "tone": tone(replica.state)},
            "rows": f"{replica.num_running}/{replica.num_slots}",
            "waits": replica.num_waiting,
            "memory": amounts.size(replica.reserved_bytes),
            "dtype": replica.dtype or "–",
            "driver": replica.driver or "–",
            "kept": kept,
        },
    }


async def build(visit: Visit) -> None:
    """The page."""
    await keep_live(visit, Overview(visit).look)


PAGE = Page(path="/overview", name="overview", icon="o_dashboard", order=20, key="o", build=build)
