"""Text for a model that speaks, letter by letter: VITS as MMS has it. Torch-free.

What Transformers' `VitsTokenizer` does: small letters, those that are in `vocab.json`, a blank
between any two. A long text is read in parts, each a row.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.params import Speak
from llmos.drivers.encoder.payload import Item, Row
from llmos.drivers.encoder.rows import Asked, Pair, Result, shaped
from llmos.drivers.encoder.texts import read_json
from llmos.errors import ContextLengthExceeded, InvalidRequest, LLMOSError, ModelRejected
from llmos.shapes.sentences import PART_CHARS, split_sentences


class Letters:
    """The vocabulary of one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelRejected."""
        settings = read_json(folder / "tokenizer_config.json")
        if settings.get("phonemize", True):
            raise ModelRejected("tokenizer_config.json: a model that reads phonemes (phonemize)")
        self._vocab = vocab = read_json(folder / "vocab.json")
        if not vocab or not all(type(i) is int and i >= 0 for i in vocab.values()):
            raise ModelRejected("vocab.json: expected an object of numbers")
        self._normalizes = bool(settings.get("normalize", True))
        self._has_blanks = bool(settings.get("add_blank", True))
        self._is_roman = bool(settings.get("is_uroman", False))
        self._is_romanian = settings.get("language") == "ron"
        self._unknown = vocab.get(_content(settings.get("unk_token", "<unk>")))
        self._words: dict[str, list[str]] = {}
        for word in vocab:
            self._words.setdefault(word[:1], []).append(word)

    def encode(self, text: str) -> list[int]:
        """Raises InvalidRequest where nothing of the text can be said."""
        text = self._lowered(text) if self._normalizes else text
        if self._is_romanian:
            text = text.replace("ț", "ţ")
        if self._is_roman and not text.isascii():
            raise InvalidRequest("the model reads Latin letters: write the text in them (uroman)")
        if self._normalizes:
            text = "".join(char for char in text if char in self._vocab).strip()
        ids = [self._vocab.get(char, self._unknown) for char in text]
        known = [number for number in ids if number is not None]
        if not known:
            raise InvalidRequest("the text has no letter that the model knows")
        if not self._has_blanks:
            return known
        spread = [0] * (2 * len(known) + 1)
        spread[1::2] = known
        return spread

    def _lowered(self, text: str) -> str:
        """What is in the vocabulary stays as it is."""
        found, at = [], 0
        while at < len(text):
            words = self._words.get(text[at], [])
            word = next((word for word in words if text.startswith(word, at)), None)
            found.append(text[at].lower() if word is None else word)
            at += 1 if word is None else len(word)
        return "".join(found)


def _content(said: Any) -> str:
    return str(said.get("content") if isinstance(said, dict) else said)


class SpeechReader:
    """Behind `rows.Reader`."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Raises ModelRejected."""
        self._letters = Letters(folder)
        self._num_voices = int(config.get("num_speakers") or 1)

    def __call__(self, asked: Asked) -> Sequence[Result]:
        params: Speak = asked.params
        about = {
            "seed": secrets.randbits(31) if params.seed is None else params.seed,
            "speaker": self._speaker(params.voice),
        }
        found: list[Result] = []
        for one in shaped(asked.items, Pair, "text"):
            try:
                if isinstance(one, Exception):
                    raise one
                rows, note = self._rows(one.text, params)
                found.append(Item(0, rows, about, note))
            except LLMOSError as error:
                found.append(error)
        return found

    def _speaker(self, voice: str | None) -> int | None:
        """A model with one voice speaks with it, whatever name it is called by."""
        if self._num_voices <= 1:
            return None
        number = int(voice) if voice is not None and voice.isascii() and voice.isdigit() else 0
        if (voice is not None and str(number) != voice) or number >= self._num_voices:
            last = self._num_voices - 1
            raise InvalidRequest(f"the model's voices are 0 to {last}", param="params.voice")
        return number

    def _rows(self, text: str, params: Speak) -> tuple[list[Row], str]:
        """A slower voice says less in a part: a part's samples are bounded."""
        if len(text) > LIMITS.speech_chars:
            raise ContextLengthExceeded(
                f"the text has {len(text)} characters, and {LIMITS.speech_chars} are read at once"
            )
        most = max(1, int(PART_CHARS * min(1.0, params.speed)))
        parts = split_sentences(text, most)
        note = ""
        if len(parts) > 1 and params.overflow == "refuse":
            raise ContextLengthExceeded(
                f"the text has {len(text)} characters, and {most} are read at once"
            )
        if len(parts) > 1 and params.overflow == "truncate":
            note, parts = f"cut to {len(parts[0])} characters", parts[:1]
        rows = []
        for part in parts or [text]:
            try:
                ids = self._letters.encode(part)
            except InvalidRequest:
                if len(parts) > 1 and not any(char.isalnum() for char in part):
                    continue  # a row of marks among sentences
                raise
            rows.append(Row(len(ids), array("i", ids).tobytes()))
        return rows, note
