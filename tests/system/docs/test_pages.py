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
from tests.system.docs.outputs import differs

pytestmark = pytest.mark.timeout(600)

MAX_EXCUSED = 19
"""Commands and programs that are not run. Only ever made smaller."""

ONCE = re.compile(r"llmos (?:train|pipeline run|eval run|task|quantize|backup|restore|key add)\b")
"""What takes seconds, or can be done once: the same words on another page prove nothing more. Nor
do those of the translated README."""

TRANSLATED = "README.zh-CN.md"
"""It says hello in Chinese. Other translations show what their originals do, which is run once:
`test_translations` holds them to it."""

PAGES = [page for page in pages() if not page.name.endswith(".zh.md")]

DEEP = {"train", "python", "quantization", "speculation", "models"}
"""Pages of up to half a minute, run by `make test-deep`; the tutorial and README train, too."""

SHOWN = [page for page in PAGES if any(b.is_shell or b.language == "python" for b in blocks(page))]


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
    printed: str | None = None
    for block in blocks(page):
        if block.is_output:
            compare(block, printed)
        elif block.file:
            desk.put(block)
        elif block.language == "python":
            printed = None if block.excuses else desk.python(block)
        elif block.is_shell:
            said = list(_typed(desk, block))
            printed = "".join(said) if said else None


def _typed(desk: Desk, block: Block) -> Iterator[str]:
    for command in block.commands():
        bare = re.sub(r"\s+#.*", "", command.text)
        is_enough = ONCE.match(bare) or block.page == TRANSLATED
        if command.excuse or (is_enough and bare in desk.done):
            continue
        yield desk.run(command)
        desk.done.add(bare)


def compare(block: Block, printed: str | None) -> None:
    """None: what stands before it was not run."""
    if printed is not None and (why := differs(block.body, printed)):
        place = f"{block.page}:{block.line}"
        raise AssertionError(f"{place}: {why}; it has\n{block.body}\nit printed\n{printed}")


def _excused() -> list[str]:
    found = []
    for page in PAGES:
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
