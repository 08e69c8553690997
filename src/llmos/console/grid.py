"""A table: rows by id, sorted and chosen by the reader, redrawn only where something changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import events, ui

from llmos.console.page import Visit


class Grid(ui.element, component="static/grid.js"):
    """`columns` have `name`, `label`, and may have `sorts` and `look` (classes). A row has `id`,
    `cells` by column (text, or `{chip, tone}`, `{bar, text}`, `{text, look, title}`), and may have
    `name` and `look`. With `on_choose`, rows are chosen by boxes; with `on_open`, opened."""

    def __init__(
        self,
        visit: Visit,
        caption: str,
        columns: Sequence[dict[str, Any]],
        *,
        on_sort: Callable[[str, bool], Any] | None = None,
        on_choose: Callable[[list[str]], Any] | None = None,
        on_open: Callable[[str], Any] | None = None,
    ) -> None:
        super().__init__()
        texts = visit.texts
        self.props.update(
            caption=caption,
            columns=list(columns),
            rows=[],
            opens=on_open is not None,
            words={
                "empty": texts("frame.nothing"),
                "choose": texts("grid.choose"),
                "all": texts("grid.all"),
            },
        )
        if on_choose is not None:
            self.props["chosen"] = []
            self.on("choose", lambda event: on_choose(_ids(event)))
        if on_open is not None:
            self.on("open", lambda event: on_open(str(event.args)))
        if on_sort is not None:
            self.on("sort", lambda event: on_sort(str(event.args[0]), bool(event.args[1])))

    def show(self, rows: Sequence[dict[str, Any]]) -> None:
        """These rows; nothing is sent where they are what is shown."""
        self._change("rows", list(rows))

    def tell(
        self, *, sort: tuple[str, bool] | None = None, chosen: list[str] | None = None
    ) -> None:
        """How it is sorted, what is chosen."""
        if sort is not None:
            self._change("sort", list(sort))
        if chosen is not None:
            self._change("chosen", chosen)

    def _change(self, name: str, value: Any) -> None:
        if self.props.get(name) != value:
            self.props[name] = value


def _ids(event: events.GenericEventArguments) -> list[str]:
    """What a browser says is chosen, which may be anything."""
    given = event.args
    return [str(one) for one in given] if isinstance(given, list) else []
