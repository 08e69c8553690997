"""Which pages there are: one for each file in `pages/`."""

from __future__ import annotations

import importlib
import pkgutil

from llmos.console import pages
from llmos.console.page import Page


def find_pages() -> list[Page]:
    """Every page, in the order of the menu."""
    found: list[Page] = [
        importlib.import_module(f"{pages.__name__}.{module.name}").PAGE
        for module in pkgutil.iter_modules(pages.__path__)
        if not module.name.startswith("_")
    ]
    return sorted(found, key=lambda page: page.order)
