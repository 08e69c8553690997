"""Every command and program that the documents show does what they say, page by page in order.

One server serves all pages, as one does for a reader. What cannot be run here says why above its
block (see `blocks`); how many there are may only go down. `make` is asked what it would do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.docs.blocks import ROOT, Block, blocks, pages
from tests.system.docs.desk import Desk, opened

pytestmark = pytest.mark.timeout(600)

MAX_EXCUSED = 19
"""Commands and programs that are not run. Only ever made smaller."""

ONCE = re.compile(r"llmos (?:train|pipeline run|eval run|task|quantize|backup|restore|key add)\b")
"""What takes seconds, or can be done once: the same words on another page prove nothing more. Nor
do those of a translation, wherever they are."""

TRANSLATED = re.compile(r"\.zh(?:-CN)?\.md\Z")

DEEP = {"train", "python", "quantization", "speculation"}
"""Pages of half a minute, run by `make test-deep`; the tutorial and README train, too."""

SHOWN = [
    page for page in pages() if any(b.is_shell or b.language == "python" for b in blocks(page))
]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with opened(tmp_path_factory.mktemp("docs")) as made:
        yield made


def _marked(page: Path) -> Any:
    return pytest.param(page, marks=[pytest.mark.deep] if page.stem in DEEP else [], id=_name(page))


@pytest.mark.parametrize("page", [_marked(page) for page in SHOWN])
def test_what_a_page_shows_works(desk: Desk, page: Path) -> None:
    desk.begin()
    printed = ""
    for block in blocks(page):
        if block.is_output:
            if printed:
                _compare(block, printed)
        elif block.file:
            desk.put(block)
        elif block.language == "python" and not block.excuses:
            printed = desk.python(block)
        elif block.is_shell:
            printed = "".join(_typed(desk, block))


def _typed(desk: Desk, block: Block) -> Iterator[str]:
    for command in block.commands():
        bare = re.sub(r"\s+#.*", "", command.text)
        is_enough = ONCE.match(bare) or TRANSLATED.search(block.page)
        if command.excuse or (is_enough and bare in desk.done):
            continue
        yield desk.run(command)
        desk.done.add(bare)


def _compare(block: Block, printed: str) -> None:
    """Line by line; numbers and ids may be others, `...` is whatever there is."""
    wanted = "\n".join(_plain(line) for line in block.body.splitlines())
    pattern = re.escape(wanted).replace(re.escape("..."), ".*?")
    got = "\n".join(_plain(line) for line in printed.splitlines())
    place = f"{block.page}:{block.line}"
    assert re.fullmatch(pattern, got, re.DOTALL), (
        f"{place} has\n{block.body}\nit printed\n{printed}"
    )


def _plain(line: str) -> str:
    line = re.sub(r"\b(?:[a-z]+_)?[0-9a-f]{12,}\b", "ID", line)
    return " ".join(re.sub(r"\d+(?:[.,:]\d+)*", "0", line).split())


def _excused() -> list[str]:
    found = []
    for page in pages():
        for block in blocks(page):
            place = f"{block.page}:{block.line}"
            found += [f"{place}: {c.text}: {c.excuse}" for c in block.commands() if c.excuse]
            if block.language == "python" and block.excuses:
                found.append(f"{place}: a program: {block.excuses[0][1]}")
    return found


def test_little_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = _excused()
    with capsys.disabled():
        print(f"\nnot run, {len(found)} in all:", *found, sep="\n  ")
    assert len(found) == MAX_EXCUSED, "write the new number down if it is smaller"


def test_every_excuse_is_one() -> None:
    """What a marker is for is there."""
    idle = [
        f"{block.page}:{block.line}: {beginning}"
        for page in pages()
        for block in blocks(page)
        for beginning, reason in block.excuses
        if beginning and not any(c.excuse == reason for c in block.commands())
    ]
    assert not idle


def test_every_block_says_what_it_is() -> None:
    bare = [f"{b.page}:{b.line}" for page in pages() for b in blocks(page) if not b.language]
    assert not bare
