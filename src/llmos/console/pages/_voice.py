"""One model's side of a chat: its conversation, and the answer under way."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nicegui import ui

from llmos.console.page import Visit
from llmos.console.pages._bubble import Bubble, facts
from llmos.console.views.talk import Picture, Speaker, conversation, spoken, with_newest_image
from llmos.console.views.transcript import Side, Turn
from llmos.console.widgets import Tag, label
from llmos.errors import LLMOSError
from llmos.sdk.draw.words import plain


class Voice:
    """A model and what was said to it. While it is hidden it is not asked."""

    def __init__(self, visit: Visit, speakers: dict[str, Speaker], name: str, title: str) -> None:
        self._visit = visit
        self._speakers = speakers
        self._history: list[dict[str, Any]] = []
        self._turns: list[Turn] = []
        self._asking: asyncio.Task[None] | None = None
        with Tag("section", classes="voice", aria_label=title) as self.box:
            self.choice = ui.select(list(speakers), value=name, label=title).props(
                "outlined dense options-dense"
            )
            self.choice.classes("model")
            self._talk = Tag("div", classes="talk", data_follow="1", tabindex="0", role="log")
            label(self._talk, aria_label=title)
            with self._talk:
                self._welcome = Tag("div", classes="welcome")

    @property
    def speaker(self) -> Speaker:
        """The model that is chosen."""
        return self._speakers[self.choice.value]

    @property
    def is_open(self) -> bool:
        return bool(self.box.visible)

    def show(self, visible: bool) -> None:
        """Show it or not; what was said stays."""
        self.box.set_visibility(visible)

    def welcome(self) -> Tag:
        """The place of what stands there before anything is said."""
        return self._welcome

    def forget(self) -> None:
        """A new conversation."""
        self.stop()
        self._history.clear()
        self._turns.clear()
        self._talk.clear()

    def stop(self) -> None:
        """End the answer under way; what there is of it stays."""
        if self._asking is not None:
            self._asking.cancel()

    def kept(self) -> Side:
        """What was said, for the browser to keep."""
        return Side(self.choice.value, self._turns)

    def restore(self, side: Side) -> None:
        """Go on with a conversation that was kept."""
        if side.model in self._speakers:
            self.choice.set_value(side.model)
        self._welcome.set_visibility(not side.turns)
        for turn in side.turns:
            self._turns.append(turn)
            self._history += turn.messages()
            with self._talk:
                self._show_said(turn.words, turn.has_image)
                Bubble(self._visit, turn.model).restore(turn)

    def _show_said(self, words: str, has_image: bool) -> None:
        with Tag("article", classes="turn ours"):
            if words:
                Tag("div", plain(words), "said")
            if has_image:
                Tag("div", self._visit.texts("chat.image_given"), "said quiet")

    async def ask(
        self, words: str, picture: Picture | None, system: str, how: dict[str, Any]
    ) -> None:
        """Say something and show the answer to its end."""
        self._welcome.set_visibility(False)
        with self._talk:
            self._show_said(words, picture is not None)
            bubble = Bubble(self._visit, self.speaker.name)
        turn = Turn(words, model=self.speaker.name, has_image=picture is not None)
        self._turns.append(turn)
        self._asking = asyncio.current_task()
        problem = ""
        try:
            if self.speaker.talks:
                await self._talk_to(bubble, spoken(words, picture), system, how)
            else:
                await self._try(bubble, words, picture)
        except LLMOSError as error:
            problem = self._visit.texts.error(error)
            bubble.finish(problem)
        except asyncio.CancelledError:
            bubble.answer.is_stopped = True
            with contextlib.suppress(RuntimeError):  # the page itself may be gone
                bubble.finish()
        finally:
            turn.keep(bubble.answer, facts(self._visit, bubble.answer), problem)
            self._asking = None

    async def _talk_to(
        self, bubble: Bubble, message: dict[str, Any], system: str, how: dict[str, Any]
    ) -> None:
        self._history.append(message)
        messages = conversation(system, self._history)
        try:
            stream = await self._visit.client.chat(self.speaker.name, messages, stream=True, **how)
            async with stream:
                async for chunk in stream:
                    bubble.take(chunk)
        finally:
            if bubble.answer.text or bubble.answer.calls:
                self._history.append(bubble.answer.message())
                self._history[:] = with_newest_image(self._history)
            else:
                self._history.pop()  # it was not answered: no part of the conversation
        bubble.finish()

    async def _try(self, bubble: Bubble, words: str, picture: Picture | None) -> None:
        given = words if picture is None else {"image": picture.data}
        made = await self._visit.client.items.infer(self.speaker.name, [given])
        datum = made.data[0]
        if datum.error is not None:
            raise datum.error
        bubble.show(datum.output)
