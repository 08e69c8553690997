"""What a page is: one file in `pages/` with a `PAGE`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from llmos.console.config import ConsoleConfig
from llmos.console.session import Session
from llmos.console.texts import Texts
from llmos.sdk.client import AsyncClient


@dataclass(frozen=True, slots=True)
class Visit:
    """One person's look at one page: their client, their language, and how large an image in a
    message may be."""

    client: AsyncClient
    texts: Texts
    session: Session
    theme: str
    config: ConsoleConfig
    max_image_bytes: int


@dataclass(frozen=True, slots=True)
class Page:
    """`name` is its key among the texts (`nav.NAME`); `icon` one of Material's; `order` its place
    in the menu; `key` the letter that goes there after `g`. `texts` are its own, (English, Chinese)
    by key, for a page that comes from elsewhere."""

    path: str
    name: str
    icon: str
    order: int
    key: str
    build: Callable[[Visit], Awaitable[None]]
    texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
