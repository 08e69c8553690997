"""The site of the documents: whole in both languages, and in need of no other host."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.system.docs.blocks import ROOT
from tools import docsite

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
OWN_RELATIONS = frozenset({"canonical", "next", "prev", "alternate"})
"""Of `<link>`: what a browser does not load."""

URL = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


class _Page(HTMLParser):
    """What a page loads and what it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in OWN_RELATIONS:
            self.loads.append(given["href"])
        if given.get(LOADING.get(tag, "")):
            self.loads.append(given[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    docsite.build(folder)
    return folder


@pytest.fixture(scope="module")
def read(site: Path) -> dict[Path, _Page]:
    return {path: _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_there_in_both_languages(site: Path) -> None:
    names = [page.stem for page in (ROOT / "docs").glob("*.md") if not page.stem.endswith(".zh")]
    assert len(names) > 30
    for folder in (site, site / "zh"):
        assert [name for name in names if not (folder / f"{name}.html").exists()] == []


def test_a_page_loads_nothing_from_elsewhere(site: Path, read: dict[Path, _Page]) -> None:
    foreign = {
        f"{path.relative_to(site)}: {what}"
        for path, page in read.items()
        for what in page.loads
        if urlsplit(what).netloc
    }
    styles = [*site.rglob("*.css"), *read]
    foreign |= {
        f"{path.relative_to(site)}: {what}"
        for path in styles
        for found in URL.findall(path.read_text("utf-8"))
        if urlsplit(what := "".join(found)).netloc
    }
    assert not foreign


def test_what_a_page_loads_and_links_to_is_there(site: Path, read: dict[Path, _Page]) -> None:
    dead = {
        f"{path.relative_to(site)}: {to}"
        for path, page in read.items()
        if path.name != "404.html"  # its paths are from the root of a host
        for to in {*page.loads, *page.links}
        if not _is_there(path, to, read)
    }
    assert not dead


def _is_there(path: Path, to: str, read: dict[Path, _Page]) -> bool:
    parts = urlsplit(to)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return False
    return not parts.fragment or target not in read or unquote(parts.fragment) in read[target].ids


def test_chinese_pages_have_a_chinese_frame(site: Path) -> None:
    for name, heading in (("tutorial", "十分钟学会 LLMOS"), ("cli", "The command line")):
        text = (site / "zh" / f"{name}.html").read_text("utf-8")
        assert "<h1 id=" in text and heading in text
        assert "操作指南" in text and "How-to guides" not in text
        assert 'lang="zh"' in text
        assert f'href="../{name}.html" hreflang="en"' in text
