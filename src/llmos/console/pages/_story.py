"""The story of one process, beside the table: its life as a bar, each decision with its reason."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from llmos.abi.principal import ServiceClass
from llmos.abi.syscall import ProcessInfo, ProcessStory
from llmos.console.frame import fail
from llmos.console.page import Visit
from llmos.console.pane import Pane
from llmos.console.views.processes import ENDED
from llmos.console.widgets import Tag, drawing
from llmos.errors import LLMOSError
from llmos.sdk.draw import amounts
from llmos.sdk.draw.life import NS, stays, timeline

HELD = frozenset({"suspended", "suspending"})


class StoryPane:
    """`changed` is called when something was done to the process."""

    def __init__(self, visit: Visit, changed: Callable[[], Awaitable[None]]) -> None:
        self._visit = visit
        self._changed = changed
        self._process_id: str | None = None
        self._story: ProcessStory | None = None
        self._markup = ""
        texts = visit.texts
        self._pane = Pane(visit, texts("why.title"), self._forget)
        with self._pane.box:
            self._name = Tag("p", "", "mono")
            self._facts = Tag("p", "", "dim")
            self._actions()
            self._drawing = drawing(classes="story")

    def _actions(self) -> None:
        texts, client = self._visit.texts, self._visit.client.processes
        with Tag("div", classes="toolbar"):
            self._suspend = self._verb("suspend", lambda: client.suspend(self._id))
            self._resume = self._verb("resume", lambda: client.resume(self._id))
            self._kill = self._verb("kill", lambda: client.kill(self._id))
        with Tag("div", classes="toolbar"):
            self._nice = ui.number(texts("why.nice"), min=-20, max=19, step=1, value=0)
            self._nice.props("outlined dense").classes("narrow")
            classes = {c.name.lower(): texts("class." + c.name.lower()) for c in ServiceClass}
            self._class = ui.select(classes, label=texts("param.class"))
            self._class.props("outlined dense options-dense").classes("middle")
            self._apply = ui.button(texts("why.apply"), on_click=self._renice)
            self._apply.props("outline no-caps dense")

    def _verb(self, verb: str, call: Callable[[], Awaitable[Any]]) -> ui.button:
        async def press() -> None:
            await self._do(call)

        color = " color=negative" if verb == "kill" else ""
        button = ui.button(self._visit.texts("verb." + verb), on_click=press)
        return button.props("outline no-caps dense" + color)

    @property
    def _id(self) -> str:
        return self._process_id or ""

    async def open(self, process_id: str) -> None:
        """Show this one; a process nobody knows is said to be so."""
        self._process_id, self._story = process_id, None
        try:
            await self.look()
        except LLMOSError as error:
            fail(self._visit, error)
        self._fill(self._story)

    def _fill(self, story: ProcessStory | None) -> None:
        if story is not None:
            self._nice.set_value(story.info.nice)
            self._class.set_value(story.info.service_class.name.lower())

    def _forget(self) -> None:
        self._process_id = self._story = None

    async def look(self) -> None:
        """Bring it up to date, if there is one that still changes. Raises LLMOSError."""
        if self._process_id is None or (self._story and self._story.info.state in ENDED):
            return
        asked = self._process_id
        try:
            story = await self._visit.client.processes.show(asked)
        except LLMOSError:
            if self._story is None:
                self._pane.close()
            else:
                self._process_id = None  # it is forgotten: its last look stays
            raise
        if asked == self._process_id:
            self._show(story)

    def _show(self, story: ProcessStory) -> None:
        self._story = story
        info, texts, now_ns = story.info, self._visit.texts, time.time_ns()
        self._name.say(info.process_id)
        self._facts.say(self._words(info))

        def name(state: str) -> str:
            return texts.find("state." + state, state)

        markup = timeline(stays(story, now_ns), name)
        if markup != self._markup:
            self._markup = markup
            self._drawing.set_content(markup)
        is_live = info.state not in ENDED
        self._suspend.set_enabled(is_live and info.state not in HELD)
        self._resume.set_enabled(is_live and info.state in HELD)
        for element in (self._kill, self._apply, self._nice, self._class):
            element.set_enabled(is_live)
        self._pane.show()
        self._pane.box.set(data_state=info.state)

    def _words(self, info: ProcessInfo) -> str:
        texts = self._visit.texts
        said = [info.model, info.principal]
        if info.prompt_tokens or info.completion_tokens:
            tokens = texts("why.tokens", prompt=info.prompt_tokens, answer=info.completion_tokens)
            said.append(tokens)
        if info.cached_tokens:
            said.append(texts("why.cached", num=info.cached_tokens))
        if info.started_ns is not None:
            waited_s = (info.started_ns - info.created_ns) / NS
            said.append(texts("why.waited", span=amounts.span(waited_s)))
        if info.eta_s is not None and info.ended_ns is None:
            said.append(texts("why.eta", span=amounts.span(info.eta_s)))
        return " · ".join(said)

    async def _renice(self) -> None:
        nice, wanted = self._nice.value, self._class.value
        nice = None if nice is None else int(nice)
        await self._do(
            lambda: self._visit.client.processes.nice(self._id, nice, service_class=wanted)
        )

    async def _do(self, call: Callable[[], Awaitable[Any]]) -> None:
        """A refusal (it ended meanwhile, somebody else was faster) is told, and the page looks."""
        try:
            await call()
        except LLMOSError as error:
            fail(self._visit, error)
        await self._changed()
