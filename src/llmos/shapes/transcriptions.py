"""/v1/audio/transcriptions: OpenAI's form, and its answers as JSON or plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from llmos.abi.program import Generate
from llmos.shapes import table
from llmos.shapes.answers import Answer
from llmos.shapes.check import names_of, validate
from llmos.shapes.embeddings import EmbeddingsLlmos, failed
from llmos.shapes.kinds import ItemsBody, Made

KIND = "automatic-speech-recognition"

IGNORED: Mapping[str, tuple[str, ...]] = {
    "chunking_strategy": ("auto",),
    "include[]": (),
    "prompt": ("",),
    "stream": ("false",),
    "temperature": ("0", "0.0"),
    "timestamp_granularities[]": (),
}
"""A table of a form, which has texts only: it knows no null."""


class TranscriptionsBody(ItemsBody):
    """Fields of the form beside `file`."""

    language: str | None = Field(default=None, min_length=1, max_length=64)
    response_format: Literal["json", "text"] = "json"

    def to_generate(self) -> Generate:
        """One inference of the one recording, which is the first of the wish's files."""
        params = {} if self.language is None else {"language": self.language}
        return self.wish(KIND, [{"blob": 0}], "transcriptions", params)


class TranscriptionAnswer(Answer):
    """Answer of /v1/audio/transcriptions."""

    text: str
    llmos: EmbeddingsLlmos


def read_transcriptions(fields: Mapping[str, Any]) -> TranscriptionsBody:
    """Raises InvalidRequest and its kinds."""
    kept = table.screen(fields, names_of(TranscriptionsBody) - {"llmos"}, IGNORED)
    return validate(TranscriptionsBody, kept)


def transcription_answer(made: Made) -> dict[str, Any]:
    """Raises what is wrong with the recording."""
    (output,) = made.outputs
    if output.error is not None:
        raise failed(output.error, "file")
    return {"text": output.value["text"], "llmos": made.llmos}
