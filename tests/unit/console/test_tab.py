"""What a tab has is read before it is written over, and stays where the browser did not answer."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest

from llmos.console.config import ConsoleConfig
from llmos.console.views.tab import READ_S, UNREADABLE, Tab
from llmos.console.views.transcript import Side, Transcript, Turn, owner_of, pack

ME, OTHER = owner_of("llmos_mine"), owner_of("llmos_other")
SIDES = [Side("pilot", [Turn("hello", "hi", "pilot")])]


@dataclass
class Browser:
    """Runs no scripts, but knows what they are: `answer` is what reading gives, or raises."""

    answer: Any
    gate: asyncio.Event | None = None
    scripts: list[tuple[str, float]] = field(default_factory=list)

    def run(self, script: str, timeout_s: float) -> Any:
        self.scripts.append((script, timeout_s))
        return _Answer(self)

    @property
    def did(self) -> list[str]:
        return [re.findall(r"sessionStorage\.(\w+)", script)[0] for script, _ in self.scripts]


class _Answer:
    """Not a coroutine: nobody has to await what is only sent."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def __await__(self) -> Any:
        return self._give().__await__()

    async def _give(self) -> Any:
        if self._browser.gate is not None:
            await self._browser.gate.wait()
        if isinstance(self._browser.answer, Exception):
            raise self._browser.answer
        return self._browser.answer


def _kept(owner: str) -> str:
    return pack(Transcript(owner, SIDES), 1000)


def _read(browser: Browser) -> Transcript | None:
    async def scene() -> Transcript | None:
        tab = Tab(browser.run, ME, 1000)
        found = await tab.read()
        tab.write(SIDES, compared=False)
        await asyncio.wait_for(tab.asked(), 1)
        return found

    return asyncio.run(scene())


def test_it_is_read_and_then_written() -> None:
    browser = Browser(_kept(ME))
    assert _read(browser) == Transcript(ME, SIDES)
    assert browser.did == ["getItem", "setItem"]
    assert browser.scripts[0][1] == READ_S >= 10


def test_an_empty_tab_is_written() -> None:
    browser = Browser("")
    assert _read(browser) is None
    assert browser.did == ["getItem", "setItem"]


@pytest.mark.parametrize("answer", [TimeoutError(), None])
def test_what_was_not_answered_is_not_written_over(answer: object) -> None:
    browser = Browser(answer)
    assert _read(browser) is None
    assert browser.did == ["getItem"]


@pytest.mark.parametrize("answer", [_kept(OTHER), "{", "[]", UNREADABLE, 7])
def test_what_is_another_s_or_unreadable_is_removed(answer: object) -> None:
    browser = Browser(answer)
    assert _read(browser) is None
    assert browser.did == ["getItem", "removeItem", "setItem"]


def test_nothing_is_written_or_said_before_it_was_read() -> None:
    async def scene() -> list[str]:
        browser = Browser(_kept(ME), asyncio.Event())
        tab = Tab(browser.run, ME, 1000)
        reading, asked = asyncio.create_task(tab.read()), asyncio.create_task(tab.asked())
        await asyncio.sleep(0)
        tab.write([], compared=False)
        assert not asked.done()
        assert browser.gate is not None
        browser.gate.set()
        assert await reading is not None
        await asyncio.wait_for(asked, 1)
        return browser.did

    assert asyncio.run(scene()) == ["getItem"]


def test_a_chat_begun_anew_meanwhile_is_not_undone() -> None:
    async def scene() -> list[str]:
        browser = Browser(_kept(ME), asyncio.Event())
        tab = Tab(browser.run, ME, 1000)
        reading = asyncio.create_task(tab.read())
        await asyncio.sleep(0)
        tab.renew()
        tab.write([], compared=False)
        assert browser.gate is not None
        browser.gate.set()
        assert await reading is None
        return browser.did

    assert asyncio.run(scene()) == ["getItem", "setItem"]


def test_where_nothing_is_to_be_kept_nothing_is_asked() -> None:
    async def scene() -> list[str]:
        browser = Browser("")
        tab = Tab(browser.run, ME, 0)
        await asyncio.wait_for(tab.asked(), 1)
        tab.renew()
        tab.write(SIDES, compared=False)
        return browser.did

    assert asyncio.run(scene()) == []


def test_more_than_a_browser_can_send_is_no_setting() -> None:
    with pytest.raises(pydantic.ValidationError):
        ConsoleConfig(max_transcript_chars=900_001)
