"""Which reader serves which kind: made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmos.drivers.encoder.captions import CaptionReader
from llmos.drivers.encoder.images import ImageReader
from llmos.drivers.encoder.kinds import Kind
from llmos.drivers.encoder.letters import SpeechReader
from llmos.drivers.encoder.rows import (
    FillReader,
    Reader,
    WriteReader,
    read_documents,
    read_entities,
    read_pairs,
    read_questions,
    read_vectors,
    read_zero_shot,
)
from llmos.drivers.encoder.sounds import MelReader, SampleReader
from llmos.drivers.encoder.texts import TextEncoder, read_json


def make_readers(folder: Path) -> dict[str, Callable[[], Reader]]:
    """By kind. Raises ModelRejected when one of them is made."""
    config = read_json(folder / "config.json")
    made: list[TextEncoder] = []

    def texts() -> TextEncoder:
        if not made:
            made.append(TextEncoder(folder, config))
        return made[0]

    return {
        Kind.CLASSIFY: lambda: lambda asked: read_pairs(texts(), asked),
        Kind.ZERO_SHOT: lambda: lambda asked: read_zero_shot(texts(), asked),
        Kind.RERANK: lambda: lambda asked: read_documents(texts(), asked),
        Kind.TOKENS: lambda: lambda asked: read_entities(texts(), asked),
        Kind.ANSWER: lambda: lambda asked: read_questions(texts(), asked),
        Kind.FILL: lambda: FillReader(texts(), folder),
        Kind.EMBED: lambda: lambda asked: read_vectors(texts(), asked),
        Kind.SUMMARIZE: lambda: WriteReader(texts(), config, folder, "summarization"),
        Kind.TRANSLATE: lambda: WriteReader(texts(), config, folder, "translation"),
        Kind.CLASSIFY_IMAGE: lambda: ImageReader(folder),
        Kind.DETECT: lambda: ImageReader(folder),
        Kind.CAPTION: lambda: CaptionReader(folder, config),
        Kind.SPEAK: lambda: SpeechReader(folder, config),
        Kind.TRANSCRIBE: lambda: (
            MelReader(folder) if config.get("model_type") == "whisper" else SampleReader(folder)
        ),
    }
