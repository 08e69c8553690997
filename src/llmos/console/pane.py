"""A pane at the side: one thing of a table in full, while the table stays in sight."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from llmos.console.page import Visit
from llmos.console.widgets import Tag, icon_button


class Pane:
    """Hidden until it is shown; what is made within `with pane.box` is in it."""

    def __init__(self, visit: Visit, title: str, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self.box = Tag("aside", classes="pane", aria_label=title, tabindex="-1")
        self.box.set_visibility(False)
        with self.box, Tag("div", classes="pane-top"):
            self.title = Tag("h2", title)
            ui.space()
            icon_button("close", visit.texts("frame.close"), self.close)

    def show(self) -> None:
        """Bring it out."""
        self.box.set_visibility(True)

    def close(self) -> None:
        """Put it away."""
        self.box.set_visibility(False)
        self._on_close()
