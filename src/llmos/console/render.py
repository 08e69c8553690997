"""What a model wrote, made safe to show: Markdown without HTML, images or scripts.

Whatever is no Markdown is text. Nothing in an answer makes a browser load anything: an image is
shown as the words that stand for it. The browser sanitizes the result once more, and the page's
policy forbids other hosts besides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from llmos.sdk.draw.words import plain

_OUTWARD = re.compile(r"(?i:https?)://[^\s/]")


class _Renderer(RendererHTML):
    """Images become text; a link says where it leads."""

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        token = tokens[idx]
        address = str(token.attrs.get("src", ""))
        return (
            f'<span class="image">{_escape(token.content or "image")} ({_escape(address)})</span>'
        )

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        address = str(tokens[idx].attrs.get("href", ""))
        shown = _escape(address)
        return f'<a href="{shown}" title="{shown}" rel="noopener noreferrer nofollow">'


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


class _Markdown(MarkdownIt):
    """Links lead to web pages and to nothing that could run."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - its name there
        return _OUTWARD.match(url) is not None


def _make() -> MarkdownIt:
    made = _Markdown(
        "commonmark", {"html": False, "linkify": False, "breaks": True}, renderer_cls=_Renderer
    )
    made.enable(["table", "strikethrough"])
    return made


_markdown = _make()


def to_html(text: str) -> str:
    """The answer as markup. Anything a model can write is allowed, and nothing of it runs."""
    return str(_markdown.render(plain(text)))
