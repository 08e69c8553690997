"""/v1/audio/speech: OpenAI's body; the answer is sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmos.abi.program import Generate
from llmos.shapes import table
from llmos.shapes.fields import fault
from llmos.shapes.kinds import ItemsBody, ItemsOptions, read_items_body
from llmos.shapes.sentences import PART_CHARS, split_sentences

KIND = "text-to-speech"
MAX_CHARS = 4096
"""OpenAI's bound."""

FORMATS = ("wav", "pcm")


def _voice(value: Any) -> Any:
    """A name, or OpenAI's object with an id."""
    return value.get("id") if isinstance(value, dict) and len(value) == 1 else value


def _format(value: Any) -> Any:
    if value not in FORMATS:
        raise fault(f"must be one of {', '.join(FORMATS)}", kind="unsupported")
    return value


class SpeechOptions(ItemsOptions):
    """As of every item; what is drawn while speaking follows from `seed`."""

    seed: int | None = Field(default=None, ge=0, lt=1 << 53, description="Draw the same again")


NO_OPTIONS = SpeechOptions()


class SpeechBody(ItemsBody):
    """Body of /v1/audio/speech."""

    beside = table.SPEECH

    input: str = Field(min_length=1, max_length=MAX_CHARS, description="What is said")
    voice: Annotated[
        str | None,
        BeforeValidator(_voice, json_schema_input_type=str | dict[str, str] | None),
        Field(max_length=64),
    ] = Field(default=None, description="One that the model has; absent: its first")
    response_format: Annotated[Literal["wav", "pcm"], BeforeValidator(_format)] = Field(
        default="wav", description="With a header, or bare 16-bit samples"
    )
    speed: float = Field(default=1.0, ge=0.25, le=4.0, description="1 is the voice's own")
    llmos: SpeechOptions = Field(
        default_factory=lambda: NO_OPTIONS, description="What OpenAI's API has no word for"
    )

    def to_generate(self) -> Generate:
        """One inference, in parts that are heard as they are ready; in one, where the text may not
        be read in parts."""
        params: dict[str, Any] = {"voice": self.voice, "seed": self.llmos.seed}
        params = {name: value for name, value in params.items() if value is not None}
        params["speed"] = self.speed
        items: list[Any] = [self.input]
        if self.llmos.overflow in (None, "window"):
            most = int(PART_CHARS * min(1.0, self.speed))
            items = _with_letters(split_sentences(self.input, most)) or items
        return self.wish(KIND, items, "speech", params)


def _with_letters(parts: list[str]) -> list[str]:
    """A row of marks among sentences has no sound."""
    return [part for part in parts if any(char.isalnum() for char in part)]


def read_speech(body: Mapping[str, Any]) -> SpeechBody:
    """Raises InvalidRequest and its kinds."""
    read: SpeechBody = read_items_body(SpeechBody, body)
    return read
