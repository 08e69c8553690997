"""What the documents say exists: targets, commands, settings, links, sections."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from llmos.api.app import ROUTES
from llmos.cli.main import app
from tests.arch.source import ROOT

READMES = ("README.md", "README.zh-CN.md")
PAGES = sorted(
    [ROOT / name for name in (*READMES, "CONTRIBUTING.md", "CHANGELOG.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:llmos|make) [^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
URL_HOST = re.compile(r"https?://([A-Za-z0-9.-]+)")
SHELLS = {"", "bash", "sh", "console", "shell"}
KNOWN_HOSTS = {"127.0.0.1", "localhost", "keepachangelog.com", "semver.org", "www.apache.org"}
KNOWN_HOSTS |= {"host"}  # any


def _page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _commands(text: str) -> Iterator[str]:
    """Lines of shell blocks, continued lines joined, and commands quoted in the prose."""
    for language, body in FENCE.findall(text):
        if language in SHELLS:
            for line in body.replace("\\\n", " ").splitlines():
                yield line.strip().removeprefix("$ ")
    yield from INLINE.findall(FENCE.sub("", text))


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_make_target_exists(page: Path) -> None:
    targets = _targets()
    for command in _commands(page.read_text()):
        if not command.startswith("make "):
            continue
        for word in shlex.split(command, comments=True)[1:]:
            if "=" in word or word.startswith("-"):
                continue
            if name := re.fullmatch(r"bench-([a-z-]+)", word):
                module = ROOT / "benchmarks" / f"bench_{name[1].replace('-', '_')}.py"
                assert module.exists(), command
            else:
                assert word in targets or word == "bench-NAME", command


def _llmos_commands() -> list[tuple[str, str]]:
    return [
        (_page_id(page), part)
        for page in PAGES
        for command in _commands(page.read_text())
        for part in re.split(r" \| | && ", command)
        if part.startswith("llmos ")
    ]


@functools.cache
def _tree() -> Any:
    """The real command tree; making it takes longer than reading a command."""
    return get_command(app)


def _parse(command: str) -> None:
    """By the real command tree, without running it. Raises what the command line would raise.

    A command named without any argument, as prose does, need only exist.
    """
    words = shlex.split(command, comments=True)[1:]
    tree, name, parent = _tree(), "llmos", None
    while True:
        bare = not words and parent is not None
        context = tree.make_context(name, list(words), parent=parent, resilient_parsing=bare)
        if not hasattr(tree, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if bare and not rest:
            return
        name, tree, words = tree.resolve_command(context, rest)
        parent = context


@pytest.mark.parametrize(("page", "command"), sorted(set(_llmos_commands())))
def test_every_llmos_command_parses(page: str, command: str) -> None:
    _parse(command)


@pytest.mark.parametrize(
    "command", ["llmos sreve", "llmos key ad", "llmos key add a --tenant t --x", "llmos ls --a b"]
)
def test_a_command_that_does_not_exist_is_found_out(command: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such"):
        _parse(command)


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_no_page_names_a_private_place(page: Path) -> None:
    text = page.read_text()
    assert set(URL_HOST.findall(text)) <= KNOWN_HOSTS
    assert not re.findall(r"(?:index-url|find-links|trusted-host)", text)
    assert not re.findall(r"(?<![\w.~])/(?:work|root|opt|mnt|tmp|Users|home/\w+)/", text)


@pytest.mark.parametrize(
    ("original", "translation"),
    [READMES, *((f"docs/{name}.md", f"docs/{name}.zh.md") for name in ("index", "tutorial"))],
)
def test_a_translation_has_the_shape_of_its_original(original: str, translation: str) -> None:
    english, chinese = [(ROOT / name).read_text() for name in (original, translation)]

    def shape(text: str) -> list[str]:
        return re.findall(r"^#+(?= )", FENCE.sub("", text), re.MULTILINE)

    def code(text: str) -> list[str]:
        """Code without comments and quoted words, which are translated."""
        blocks = [re.sub(r"#.*$", "", body, flags=re.MULTILINE) for _, body in FENCE.findall(text)]
        return [
            re.sub(r'"[^"\n]*"', '""', line).rstrip() for b in blocks for line in b.splitlines()
        ]

    assert shape(english) == shape(chinese)
    assert code(english) == code(chinese)
    assert len(re.findall(r"[\u4e00-\u9fff]", chinese)) > 100


def test_every_translation_is_compared() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.zh.md")}
    assert pages == {"index.zh.md", "tutorial.zh.md"}


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_adrs_are_numbered_without_gaps() -> None:
    numbers = sorted(int(p.name[:4]) for p in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_adr_is_decided() -> None:
    for page in (ROOT / "docs" / "adr").glob("[0-9]*.md"):
        assert re.search(
            r"^Status: (accepted|superseded by \d{4}), \d{4}-\d\d-\d\d$",
            page.read_text(),
            re.MULTILINE,
        )


def test_the_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "tools/docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_settings_page_describes_every_key() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", text, re.MULTILINE)
    assert rows
    assert [name for name, meaning in rows if not meaning.strip()] == []


def test_every_route_of_openais_is_listed() -> None:
    """The table of docs/openai.md and the routes there are."""
    page = (ROOT / "docs" / "openai.md").read_text()
    table = page[page.index("| route |") : page.index("| field |")]
    listed = set(re.findall(r"`(/v1/[^`]+)`", table))
    there = {route.path.replace(":path}", "}") for route in ROUTES}
    assert listed == {path for path in there if path.startswith("/v1/")}
