"""A Chinese page says what its English one does. Nothing is run here.

What a page shows to type in is the same in both, remarks aside, so `test_pages` runs it once.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.docs.blocks import ROOT, Block, blocks

TRANSLATIONS = sorted((ROOT / "docs").glob("*.zh.md"))
REFERENCE = ("models", "openai", "tasks", "train")
"""Pages whose figures and names are held against the English ones, too."""

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_REMARK = re.compile(r"\s+#.*")


def shown(block: Block) -> tuple[object, ...]:
    """What a block has without its remarks."""
    body = "\n".join(_REMARK.sub("", line) for line in block.body.splitlines())
    return block.language, body, [at for at, _ in block.excuses], block.is_output, block.file


def english(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh.md", ".md"))


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: page.name)
def test_a_translation_shows_what_the_original_does(page: Path) -> None:
    assert [shown(b) for b in blocks(page)] == [shown(b) for b in blocks(english(page))]


@pytest.mark.parametrize("name", REFERENCE)
def test_names_and_figures_are_those_of_the_original(name: str) -> None:
    there = english(page := ROOT / "docs" / f"{name}.zh.md").read_text("utf-8")
    here = page.read_text("utf-8")
    assert names(here) == names(there)
    assert sorted(figures(here)) == sorted(figures(there))


def names(text: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))


def figures(text: str) -> set[str]:
    """Numbers in words of the page; a version or a path is one, too."""
    return set(_NUMBER.findall(_FENCE.sub("", text)))


def test_another_command_is_noticed(tmp_path: Path) -> None:
    for name, command in (("a.md", "llmos ls  # all"), ("a.zh.md", "llmos ps  # 全部")):
        (tmp_path / name).write_text(f"```console\n{command}\n```\n", "utf-8")
    here, there = (blocks(tmp_path / name, tmp_path) for name in ("a.zh.md", "a.md"))
    assert [shown(b) for b in here] != [shown(b) for b in there]


def test_another_remark_is_not(tmp_path: Path) -> None:
    for name, remark in (("a.md", "all"), ("a.zh.md", "全部")):
        (tmp_path / name).write_text(f"```console\nllmos ls   # {remark}\n```\n", "utf-8")
    here, there = (blocks(tmp_path / name, tmp_path) for name in ("a.zh.md", "a.md"))
    assert [shown(b) for b in here] == [shown(b) for b in there]
