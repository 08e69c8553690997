"""Chat: talk to a model, or to two side by side."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nicegui import events, ui
from nicegui.awaitable_response import AwaitableResponse
from nicegui.elements.mixins.value_element import ValueElement

from llmos.abi.principal import ServiceClass
from llmos.console.frame import fail
from llmos.console.page import Page, Visit
from llmos.console.pages._voice import Voice
from llmos.console.views.tab import Tab
from llmos.console.views.talk import Picture, Speaker, sampling, speakers
from llmos.console.views.transcript import owner_of
from llmos.console.widgets import Tag, icon_button, label
from llmos.errors import LLMOSError
from llmos.sdk.draw import amounts

NUMBERS: tuple[tuple[str, float | None, float | None, float], ...] = (
    ("temperature", 0, 2, 0.1),
    ("top_p", 0.01, 1, 0.05),
    ("max_tokens", 1, None, 1),
    ("seed", None, None, 1),
)
"""Parameters that are numbers: name, least, most, step."""
SUGGESTIONS = ("chat.suggest.1", "chat.suggest.2", "chat.suggest.3")


class Chat:
    """The page: two voices, of which one may be hidden, a place to write, and parameters."""

    def __init__(self, visit: Visit, found: dict[str, Speaker]) -> None:
        self._visit = visit
        self._found = found
        self._picture: Picture | None = None
        self._given: dict[str, Any] = {"class": ServiceClass.INTERACTIVE.name.lower()}
        names = [name for name in found if found[name].talks] or list(found)
        texts = visit.texts
        with Tag("div", classes="chat"):
            with Tag("div", classes="chat-main"):
                self._bar()
                with Tag("div", classes="voices"):
                    self._first = Voice(visit, found, names[0], texts("chat.model"))
                    other = names[1] if len(names) > 1 else names[0]
                    self._second = Voice(visit, found, other, texts("chat.other"))
                self._second.show(False)
                self._compose()
            self._side = Tag("aside", classes="params", aria_label=texts("chat.parameters"))
            with self._side:
                self._parameters()
        self._greet()
        ui.context.client.on_delete(self._stop)
        owner = owner_of(visit.session.key)
        self._tab = Tab(_run, owner, visit.config.max_transcript_chars)
        if visit.config.max_transcript_chars:
            ui.timer(0, self._restore, once=True)

    def _voices(self) -> tuple[Voice, Voice]:
        return self._first, self._second

    def _open(self) -> list[Voice]:
        return [voice for voice in self._voices() if voice.is_open]

    def _bar(self) -> None:
        texts = self._visit.texts
        with Tag("div", classes="bar"):
            ui.button(texts("chat.new"), icon="o_add", on_click=self._renew).props(
                "flat dense no-caps"
            )
            self._compare = ui.button(
                texts("chat.compare"), icon="o_vertical_split", on_click=self._toggle
            ).props("flat dense no-caps")
            ui.space()
            self._tune = ui.button(
                texts("chat.parameters"), icon="o_tune", on_click=self._toggle_parameters
            ).props("flat dense no-caps")
            label(self._tune, aria_expanded="false")

    def _compose(self) -> None:
        texts = self._visit.texts
        with Tag("div", classes="composer"):
            self._preview = Tag("div", classes="preview")
            self._preview.set_visibility(False)
            with Tag("div", classes="write"):
                self._upload = ui.upload(
                    on_upload=self._add_image,
                    on_rejected=self._refuse_image,
                    auto_upload=True,
                    max_file_size=self._visit.max_image_bytes,
                ).classes("hidden-upload")
                label(self._upload, accept="image/*", aria_hidden="true")
                self._attach = icon_button(
                    "o_image", texts("chat.image"), lambda: self._upload.run_method("pickFiles")
                )
                self._words = ui.textarea(placeholder=texts("chat.hint")).props(
                    "autogrow borderless dense rows=1"
                )
                self._words.classes("words")
                label(
                    self._words,
                    aria_label=texts("chat.write"),
                    data_write="1",
                    maxlength=self._visit.config.max_message_chars,
                )
                self._words.on(
                    "keydown.enter",
                    self._send,
                    js_handler="(e) => { if (e.shiftKey || e.isComposing) return;"
                    " e.preventDefault(); emit(); }",
                )
                self._go = ui.button(icon="arrow_upward", on_click=self._send).props(
                    "round unelevated"
                )
                label(self._go, aria_label=texts("chat.send"))
                self._halt = ui.button(icon="stop", on_click=self._stop).props("round unelevated")
                label(self._halt, aria_label=texts("chat.stop"), data_stop="1")
                self._halt.set_visibility(False)

    def _parameters(self) -> None:
        texts = self._visit.texts
        Tag("h2", texts("chat.parameters"))
        self._take("system", ui.textarea(texts("param.system")).props("outlined dense autogrow"))
        for name, low, high, step in NUMBERS:
            field = ui.number(texts("param." + name), min=low, max=high, step=step)
            self._take(name, field.props("outlined dense clearable"))
        names = [one.name.lower() for one in ServiceClass]
        choice = ui.select(
            {name: texts("class." + name) for name in names},
            label=texts("param.class"),
            value=self._given["class"],
        )
        self._take("class", choice.props("outlined dense options-dense"))
        tools = ui.textarea(texts("param.tools")).props("outlined dense autogrow")
        self._take("tools", tools.classes("code"))

    def _take(self, name: str, field: ValueElement[Any]) -> None:
        """What is in a field is given with the next message."""
        field.on_value_change(lambda event: self._given.update({name: event.value}))

    def _greet(self) -> None:
        texts = self._visit.texts
        with self._first.welcome():
            Tag("h2", texts("chat.welcome"))
            Tag("p", texts("chat.welcome_more"))
            with Tag("div", classes="suggestions"):
                for key in SUGGESTIONS:
                    ui.button(texts(key), on_click=lambda key=key: self._suggest(key)).props(
                        "outline no-caps"
                    )

    async def _restore(self) -> None:
        """Go on where this tab was."""
        kept = await self._tab.read()
        if kept is None or any(voice.kept().turns for voice in self._voices()):
            return
        for voice, side in zip(self._voices(), kept.sides, strict=False):
            voice.restore(side)
        if kept.compared:
            self._toggle()

    def _keep(self) -> None:
        """The tab keeps what was said."""
        sides = [voice.kept() for voice in self._voices()]
        self._tab.write(sides, compared=self._second.is_open)

    def _toggle(self) -> None:
        shown = not self._second.is_open
        self._second.show(shown)
        self._compare.set_text(self._visit.texts("chat.compare_end" if shown else "chat.compare"))

    def _toggle_parameters(self) -> None:
        self._side.classes(toggle="open")
        label(self._tune, aria_expanded=str("open" in self._side.classes).lower())

    def _renew(self) -> None:
        for voice in self._voices():
            voice.forget()
        self._tab.renew()
        self._keep()
        self._words.run_method("focus")

    def _stop(self) -> None:
        for voice in self._voices():
            voice.stop()

    async def _add_image(self, event: events.UploadEventArguments) -> None:
        kind = event.file.content_type
        self._picture = picture = Picture(await event.file.read(), kind, event.file.name)
        self._upload.reset()
        self._preview.clear()
        with self._preview:
            if kind in {"image/png", "image/jpeg", "image/webp", "image/gif"}:
                Tag("img", src=picture.url, alt=picture.name)
            Tag("span", picture.name)
            icon_button("close", self._visit.texts("chat.image_drop"), self._drop_image)
        self._preview.set_visibility(True)

    def _refuse_image(self) -> None:
        most = amounts.size(self._visit.max_image_bytes)
        told = self._visit.texts("chat.image_too_large", size=most)
        ui.notify(told, type="warning", position="top")

    def _drop_image(self) -> None:
        self._picture = None
        self._preview.set_visibility(False)

    async def _suggest(self, key: str) -> None:
        self._words.set_value(self._visit.texts(key))
        await self._send()

    async def _send(self) -> None:
        await self._tab.asked()  # else what is restored would come after it, or not at all
        words, picture = (self._words.value or "").strip(), self._picture
        if self._halt.visible or not (words or picture):
            return
        voices = self._open()
        texts, limit = self._visit.texts, self._visit.config.max_message_chars
        if len(words) > limit:
            ui.notify(texts("chat.too_long", num=limit), type="warning", position="top")
            return
        for voice in voices:
            if voice.speaker.looks and picture is None:
                needed = texts("chat.image_needed", model=voice.speaker.name)
                ui.notify(needed, type="warning", position="top")
                return
        try:
            how = sampling(self._given)
        except LLMOSError as error:
            fail(self._visit, error)
            return
        self._words.set_value("")
        self._drop_image()
        self._busy(True)
        system = self._given.get("system") or ""
        asked = [asyncio.ensure_future(v.ask(words, picture, system, how)) for v in voices]
        await asyncio.sleep(0)  # each has its turn now: a reload meanwhile finds what was said
        self._keep()
        try:
            await asyncio.gather(*asked)
        finally:
            self._busy(False)
            with contextlib.suppress(RuntimeError):  # the page itself may be gone
                self._keep()

    def _busy(self, busy: bool) -> None:
        self._go.set_visibility(not busy)
        self._halt.set_visibility(busy)


def _run(script: str, timeout_s: float) -> AwaitableResponse:
    return ui.run_javascript(script, timeout=timeout_s)


async def build(visit: Visit) -> None:
    """The page."""
    found = speakers(await visit.client.models.list())
    if not found:
        Tag("p", visit.texts("chat.no_models"), "nothing")
        return
    Chat(visit, found)


PAGE = Page(path="/", name="chat", icon="o_chat_bubble_outline", order=10, key="c", build=build)
