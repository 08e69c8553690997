"""Settings: every value in force, where it came from and what it means. Nothing is changed here:
settings are read at the start, from flags, the environment and files."""

from __future__ import annotations

from nicegui import ui

from llmos.abi.settings import SettingInfo
from llmos.console.grid import Grid
from llmos.console.page import Page, Visit
from llmos.console.views.settings import ORIGINS, rows
from llmos.console.widgets import Tag, label
from llmos.errors import PermissionDenied

COLUMNS = (("key", ""), ("value", "mono"), ("origin", ""), ("meaning", "wrap phone-no"))


class Settings:
    """The table and what narrows it."""

    def __init__(self, visit: Visit, settings: list[SettingInfo]) -> None:
        self._visit = visit
        self._settings = settings
        self._words = ""
        self._origin = "all"
        texts = visit.texts
        with Tag("div", classes="toolbar"):
            origins = {name: texts("origin." + name) for name in ORIGINS}
            ui.toggle(origins, value="all", on_change=lambda e: self._narrow(origin=e.value)).props(
                "no-caps unelevated dense toggle-color=primary"
            ).classes("groups")
            field = ui.input(placeholder=texts("process.search")).props(
                "outlined dense clearable debounce=200"
            )
            label(field.classes("search"), aria_label=texts("process.search"), data_write="1")
            field.on_value_change(lambda e: self._narrow(words=e.value or ""))
        columns = [
            {"name": name, "label": texts("setting." + name), "look": look}
            for name, look in COLUMNS
        ]
        self._grid = Grid(visit, texts("nav.settings"), columns)
        self._narrow()

    def _narrow(self, *, words: str | None = None, origin: str | None = None) -> None:
        self._words = self._words if words is None else words
        self._origin = origin or self._origin
        self._grid.show(rows(self._settings, self._words, self._origin, self._visit.texts.find))


async def build(visit: Visit) -> None:
    """The page."""
    try:
        settings = await visit.client.settings()
    except PermissionDenied:
        Tag("p", visit.texts("frame.denied"), "nothing", role="alert")
        return
    Settings(visit, settings)


PAGE = Page(path="/settings", name="settings", icon="o_settings", order=90, key="s", build=build)
