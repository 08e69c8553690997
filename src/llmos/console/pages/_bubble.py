"""One answer on the page of chats: it fills as it arrives, then says how fast it came."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from llmos.console.frame import fail
from llmos.console.page import Visit
from llmos.console.render import to_html
from llmos.console.views.talk import finding
from llmos.console.views.transcript import Turn
from llmos.console.widgets import Tag, icon_button, label
from llmos.errors import LLMOSError
from llmos.sdk.answer import Answer, ToolUse
from llmos.sdk.draw import amounts
from llmos.sdk.draw.words import plain
from llmos.sdk.results import Chunk


class Bubble:
    """An answer and what one can do with it. `model` is the reference that was asked."""

    def __init__(self, visit: Visit, model: str) -> None:
        self._visit = visit
        self._model = model
        self.answer = Answer(time.monotonic())
        self._painted_s = 0.0
        self._pause_s = visit.config.paint_s
        with Tag("article", classes="turn theirs", aria_label=model):
            self._who = Tag("div", model, "who")
            self._text = ui.html("", sanitize=True).classes("answer")
            label(self._text, aria_live="polite", aria_busy="true")
            self._wait = Tag("div", visit.texts("chat.waiting"), "waiting")
            self._calls = Tag("div", classes="calls")
            with Tag("footer", classes="facts"):
                self._facts = Tag("span", "", "speed")
                self._tools = Tag("span", classes="tools")

    def take(self, chunk: Chunk) -> None:
        """A piece of it. Painting is dear, so it is done now and then, the rarer the longer it
        takes."""
        now = time.monotonic()
        self.answer.feed(chunk, now)
        if self.answer.first_s is not None and now - self._painted_s >= self._pause_s:
            self._paint()
            took_s = time.monotonic() - now
            self._painted_s = now
            self._pause_s = max(self._visit.config.paint_s, 10 * took_s)

    def finish(self, problem: str = "") -> None:
        """It is complete, or was ended by a problem."""
        self._paint()
        self._close(problem)

    def restore(self, turn: Turn) -> None:
        """An answer of before, as it was kept."""
        self.answer.text, self.answer.request_id = turn.text, turn.request_id
        for place, call in enumerate(turn.calls):
            self.answer.calls[place] = ToolUse(call.id, call.name, call.arguments)
        self.answer.first_s = self.answer.asked_s
        self.answer.is_stopped = not (turn.facts or turn.problem)
        self._paint()
        self._facts.say(turn.facts or facts(self._visit, self.answer))
        self._close(turn.problem)

    def _close(self, problem: str) -> None:
        self._wait.set_visibility(False)
        label(self._text, aria_busy="false")
        if problem:
            with self._calls:
                Tag("p", problem, "problem", role="alert")
        self._offer()

    def show(self, output: Any) -> None:
        """What is no text of a model but what it found in an input."""
        self._wait.set_visibility(False)
        self._text.set_content(finding(output))
        label(self._text, aria_busy="false")
        self._facts.say(amounts.span(time.monotonic() - self.answer.asked_s))

    def _paint(self) -> None:
        self._wait.set_visibility(self.answer.first_s is None)
        self._text.set_content(to_html(self.answer.text))
        self._facts.say(facts(self._visit, self.answer))
        if self.answer.calls:
            self._calls.clear()
            with self._calls:
                for call in self.answer.calls.values():
                    with Tag("div", classes="call"):
                        Tag("strong", self._visit.texts("chat.call", name=plain(call.name)))
                        Tag("pre", plain(call.pretty))

    def _offer(self) -> None:
        texts = self._visit.texts
        with self._tools:
            icon_button("o_content_copy", texts("chat.copy"), self._copy)
            if not self.answer.request_id:
                return
            up = icon_button("o_thumb_up", texts("chat.good"), lambda: self._rate("up", up, down))
            down = icon_button(
                "o_thumb_down", texts("chat.bad"), lambda: self._rate("down", down, up)
            )
            for button in (up, down):
                label(button, aria_pressed="false")
            icon_button("o_timeline", texts("chat.why"), self._why)

    def _copy(self) -> None:
        ui.clipboard.write(self.answer.text)
        ui.notify(self._visit.texts("chat.copied"), position="top")

    def _why(self) -> None:
        ui.navigate.to(f"/processes?id={self.answer.request_id}")

    async def _rate(self, rating: str, chosen: ui.button, other: ui.button) -> None:
        try:
            await self._visit.client.feedback.add(self.answer.request_id, rating)
        except LLMOSError as error:
            fail(self._visit, error)
            return
        for button, pressed in ((chosen, "true"), (other, "false")):
            label(button, aria_pressed=pressed)
        ui.notify(self._visit.texts("chat.kept"), position="top")


def facts(visit: Visit, answer: Answer) -> str:
    """How fast it came, in words."""
    texts, said = visit.texts, []
    if answer.tokens_per_s is not None:
        said.append(texts("chat.speed", speed=amounts.rate(answer.tokens_per_s)))
    if answer.first_after_s is not None:
        said.append(texts("chat.first", first=amounts.span(answer.first_after_s)))
    if answer.num_tokens:
        said.append(texts("chat.tokens", num=amounts.count(answer.num_tokens)))
    if answer.finish_reason == "length":
        said.append(texts("chat.cut"))
    if answer.is_stopped:
        said.append(texts("chat.stopped"))
    return " · ".join(said)
