"""Images, each with the text that what is said of it begins with. Torch-free."""

from __future__ import annotations

from array import array
from itertools import compress
from pathlib import Path
from typing import Any

from llmos.drivers.encoder.images import ImageReader
from llmos.drivers.encoder.payload import Item, Row
from llmos.drivers.encoder.rows import Asked
from llmos.drivers.encoder.spill import Spill
from llmos.drivers.encoder.texts import TextEncoder, Wanted
from llmos.errors import ContextLengthExceeded, InvalidRequest

_WHOLE = Wanted("refuse", 0, offsets=True)


class CaptionReader(ImageReader):
    """Of `{"blob"}`, or `{"blob", "text"}`: the decoder goes on from the text's tokens, which come
    after the one that it always begins with."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Raises ModelRejected, PluginError where Pillow is missing."""
        super().__init__(folder)
        self._folder = folder
        written = config.get("text_config") or config.get("decoder")
        self._config: dict[str, Any] = written if isinstance(written, dict) else {}
        self._encoder: TextEncoder | None = None

    def read(self, asked: Asked, item: Any, spill: Spill) -> Item:
        """Raises InvalidRequest and its kinds, PayloadTooLarge."""
        if not isinstance(item, dict) or "text" not in item:
            return super().read(asked, item, spill)
        prompt = self._tokens(asked, item["text"])
        made = super().read(asked, {k: v for k, v in item.items() if k != "text"}, spill)
        (row,) = made.rows
        priced = Row(row.cost + len(prompt), start=row.start, shape=row.shape)
        return Item(0, [priced], made.about | {"prompt": prompt})

    def _tokens(self, asked: Asked, text: Any) -> list[int]:
        """Without what the tokenizer puts around a text."""
        if self._encoder is None:
            self._encoder = TextEncoder(self._folder, self._config)
        encoder, room = self._encoder, self._encoder.room(asked.room)
        if isinstance(text, str):
            asked.take_text(len(text))
        (encoded,) = encoder.encode([text], room, _WHOLE)
        if isinstance(encoded, Exception):
            raise encoded
        (row,) = encoded.rows
        tokens = list(compress(array("i", row.tokens), (not special for special in row.special)))
        if not tokens:
            raise InvalidRequest("the text has no tokens")
        if len(tokens) + 2 > room:  # the one before it, and one that is made
            raise ContextLengthExceeded(
                f"the text has {len(tokens)} tokens, and the model reads {room - 2}"
            )
        return tokens
