"""Every text is there in both languages, and every one that the code names is there."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import llmos.console
from llmos.abi.jobs import JobState
from llmos.abi.principal import ServiceClass
from llmos.abi.tasks import TaskKind
from llmos.console.found import find_pages
from llmos.console.texts import TEXTS, Texts
from llmos.errors import Conflict

SOURCE = Path(llmos.console.__file__).parent
CALL = re.compile(r"""(?:texts|markup|find)\(\s*f?["']([a-z_]+\.[a-z_.0-9]+)["']\s*[,)]""")
PREFIX = re.compile(r"""(?:texts|markup|find)\(\s*["']([a-z_]+\.(?:[a-z]+\.)?)["'] \+""")


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", sorted(TEXTS))
def test_a_text_says_the_same_in_both_languages(key: str) -> None:
    english, chinese = TEXTS[key]
    assert english.strip()
    assert chinese.strip()
    assert _fields(english) == _fields(chinese)
    assert not re.search(r"[\u4e00-\u9fff]", english)
    assert key == "param.top_p" or key == "alert.slow" or re.search(r"[\u4e00-\u9fff]", chinese)


def test_every_text_that_is_named_exists() -> None:
    code = "\n".join(path.read_text("utf-8") for path in SOURCE.rglob("*.py"))
    named = set(CALL.findall(code))
    assert len(named) > 50
    assert named - set(TEXTS) == set()
    for prefix in PREFIX.findall(code):
        assert any(key.startswith(prefix) for key in TEXTS), prefix


def test_fields_are_filled_and_markup_is_escaped() -> None:
    texts = Texts("zh")
    assert texts.tag == "zh-CN"
    assert texts("chat.tokens", num=3) == "3 个词元"
    assert Texts("en").markup("alert.problem", what="<b>") == "Not ready: &lt;b&gt;"
    assert texts.find("state.of.mind", "calm") == "calm"
    assert Texts("en").error(Conflict("it ended")) == "it ended (conflict)"


def test_a_text_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        Texts("en")("no.such.text")


def test_what_other_packages_name_has_a_text() -> None:
    named = {f"kind.{kind}" for kind in TaskKind} | {f"state.{state}" for state in JobState}
    named |= {f"class.{one.name.lower()}" for one in ServiceClass}
    named |= {f"nav.{page.name}" for page in find_pages()}
    assert named - set(TEXTS) == set()


def test_no_two_pages_have_one_place() -> None:
    pages = find_pages()
    for field in ("path", "name", "key", "order"):
        assert len({getattr(page, field) for page in pages}) == len(pages)
