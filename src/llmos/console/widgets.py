"""Small parts that several pages are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui


class Tag(ui.element):
    """A plain element with words in it, which are never read as markup."""

    def __init__(self, tag: str, text: str = "", classes: str = "", **attributes: Any) -> None:
        super().__init__(tag)
        self._text = text
        if classes:
            self.classes(classes)
        self.set(**attributes)

    def say(self, text: str) -> None:
        """Other words; nothing is sent when they are the same."""
        if text != self._text:
            self._text = text
            self.update()

    def set(self, **attributes: Any) -> None:
        """Attributes by name (`aria_label` is `aria-label`); None takes one away."""
        label(self, **attributes)


def label(element: ui.element, **attributes: Any) -> ui.element:
    """Set attributes of any element: words of others need no quoting here."""
    for name, value in attributes.items():
        element.props.set_optional(name.rstrip("_").replace("_", "-"), value)
    return element


def icon_button(icon: str, name: str, on_click: Callable[..., Any]) -> ui.button:
    """A button that shows a picture and says what it does."""
    button = ui.button(icon=icon, on_click=on_click).props("flat round dense").classes("quiet")
    label(button, aria_label=name)
    with button:
        ui.tooltip(name)
    return button


def drawing(content: str = "", classes: str = "") -> ui.html:
    """Markup that is ours alone; every word of others in it is escaped where it is made."""
    return ui.html(content, sanitize=False).classes(classes)
