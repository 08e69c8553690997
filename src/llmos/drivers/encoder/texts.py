"""Texts to rows of tokens, and to windows where a text is longer than the model reads."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer

from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.payload import Row
from llmos.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelRejected,
    PayloadTooLarge,
)

SHIFTED = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet"),
    *("data2vec-text",),
}
"""Model types whose positions begin after the padding token's id, so that fewer are of use."""

CHARS_PER_TOKEN = 64
"""Of a text that is cut to some tokens, so many characters for each are looked at first."""

UNBOUNDED_TOKENS = 1 << 24
"""`model_max_length` above this means that nobody has said."""


class Encoded(NamedTuple):
    """One text as rows; `note` says what of it was left out."""

    rows: list[Row]
    note: str


class Wanted(NamedTuple):
    """How to encode: `side` is which text of a pair is cut, `first`, `second` or `longest_first`;
    `offsets`: rows say which characters their tokens stand for, and which tokens are not of the
    text (of a pair with `is_pair`, of its second one)."""

    overflow: str
    stride: int
    side: str = "longest_first"
    offsets: bool = False
    is_pair: bool = False


def read_json(path: Path) -> dict[str, Any]:
    """An object of a file that may be missing; anything unreadable counts as missing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class TextEncoder:
    """The tokenizer of one folder. Not for two threads: truncation is a state of the library."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Raises ModelRejected."""
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ModelRejected(f"tokenizer.json: {error}") from error
        self.tokenizer.no_padding()
        self._most = _longest(folder, config)
        self._has_types = _has_types(read_json(folder / "tokenizer_config.json"))

    def room(self, context_length: int) -> int:
        """Tokens of a row, those that the tokenizer adds included."""
        return min(self._most, context_length) if context_length else self._most

    def encode(self, texts: Sequence[Any], room: int, wanted: Wanted) -> list[Encoded | Exception]:
        """Of each text or pair its rows, or the UserError why there are none."""
        checked = [_check(text) for text in texts]
        good = [text for text in checked if not isinstance(text, Exception)]
        made = iter(self._encode_all(good, room, wanted))
        return [text if isinstance(text, Exception) else next(made) for text in checked]

    def weigh(self, texts: Sequence[Any], room: int, wanted: Wanted) -> int:
        """Characters of them that are read, about."""
        most = room * CHARS_PER_TOKEN if wanted.overflow == "truncate" else LIMITS.text_chars
        parts = (part for text in texts for part in (text if isinstance(text, tuple) else (text,)))
        return sum(min(len(part), most) for part in parts)

    def _encode_all(
        self, texts: list[Any], room: int, wanted: Wanted
    ) -> Iterator[Encoded | Exception]:
        self._cut(room, wanted)
        try:
            encodings = self._batch(texts, room, wanted)
        except Exception:  # noqa: BLE001 - one text cannot be cut as wished: which one?
            for text in texts:
                yield self._encode_one(text, room, wanted)
            return
        for encoding in encodings:
            yield self._finish(encoding, room, wanted)

    def _batch(self, texts: list[Any], room: int, wanted: Wanted) -> list[Encoding]:
        """Of a long text that is cut anyway, its beginning tells enough, unless hardly any tokens
        come of it."""
        most = room * CHARS_PER_TOKEN if wanted.overflow == "truncate" else LIMITS.text_chars
        heads = [text[:most] if isinstance(text, str) else text for text in texts]
        encodings: list[Encoding] = self.tokenizer.encode_batch(heads)
        for i, (text, head) in enumerate(zip(texts, heads, strict=True)):
            if len(head) < len(text) and len(encodings[i].overflowing) < 2:
                encodings[i] = self.tokenizer.encode(text)
        return encodings

    def _encode_one(self, text: Any, room: int, wanted: Wanted) -> Encoded | Exception:
        try:
            encoding = (
                self.tokenizer.encode(*text)
                if isinstance(text, tuple)
                else self.tokenizer.encode(text)
            )
        except Exception as error:  # noqa: BLE001 - of the library, which has no class for it
            return ContextLengthExceeded(f"the text cannot be cut to {room} tokens: {error}")
        return self._finish(encoding, room, wanted)

    def _cut(self, room: int, wanted: Wanted) -> None:
        if wanted.overflow == "refuse":
            self.tokenizer.no_truncation()
            return
        side = {"first": "only_first", "second": "only_second"}.get(wanted.side, wanted.side)
        stride = min(wanted.stride, max(0, room // 2 - 2))
        self.tokenizer.enable_truncation(
            room, stride=stride if wanted.overflow == "window" else 0, strategy=side
        )

    def _finish(self, encoding: Encoding, room: int, wanted: Wanted) -> Encoded | Exception:
        if wanted.overflow == "refuse" and len(encoding.ids) > room:
            return ContextLengthExceeded(
                f"the text has {len(encoding.ids)} tokens, and the model reads {room}"
            )
        windows = [encoding]
        note = ""
        if encoding.overflowing:
            if wanted.overflow == "window":
                windows += encoding.overflowing[: LIMITS.num_windows - 1]
                note = f"read in {len(windows)} windows of {room} tokens"
            if wanted.overflow == "truncate" or len(encoding.overflowing) >= LIMITS.num_windows:
                note = f"cut to {room * len(windows)} tokens"
        if not encoding.ids:
            return InvalidRequest("the text is empty")
        return Encoded([self._row(window, wanted) for window in windows], note)

    def _row(self, encoding: Encoding, wanted: Wanted) -> Row:
        ids, types = encoding.ids, encoding.type_ids if self._has_types else []
        special = offsets = b""
        if wanted.offsets:
            offsets = array("i", [n for pair in encoding.offsets for n in pair]).tobytes()
            special = bytes(encoding.special_tokens_mask)
            if wanted.is_pair:
                special = bytes(part != 1 for part in encoding.sequence_ids)
        return Row(
            cost=len(ids),
            tokens=array("i", ids).tobytes(),
            types=bytes(types) if any(types) else b"",
            special=special,
            offsets=offsets,
        )


def _has_types(settings: dict[str, Any]) -> bool:
    """Whether a pair's second text is told from its first, as Transformers' tokenizers decide."""
    names = settings.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return settings.get("tokenizer_class") not in ("PreTrainedTokenizerFast", "TokenizersBackend")


def _check(text: Any) -> Any:
    """A text or a pair of texts as the library takes it, or what is wrong with it."""
    parts = text if isinstance(text, tuple) else (text,)
    for part in parts:
        if not isinstance(part, str):
            return InvalidRequest(f"a text is expected, not {type(part).__name__}")
        try:
            part.encode()
        except UnicodeEncodeError:
            return InvalidRequest("the text has half a surrogate pair")
        if len(part) > LIMITS.text_chars:
            return PayloadTooLarge(f"a text of {len(part)} characters is over {LIMITS.text_chars}")
    return text


def _longest(folder: Path, config: dict[str, Any]) -> int:
    """What positions, the tokenizer's settings and sentence-transformers' own allow."""
    said = [
        _count(config.get("max_position_embeddings")),
        _count(config.get("n_positions")),
        _count(read_json(folder / "tokenizer_config.json").get("model_max_length")),
        _count(read_json(folder / "sentence_bert_config.json").get("max_seq_length")),
    ]
    if said[0] and config.get("model_type") in SHIFTED:
        pad = config.get("pad_token_id")
        said[0] -= (pad if isinstance(pad, int) and pad >= 0 else 1) + 1
    return min((n for n in said if n), default=512)


def _count(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value < UNBOUNDED_TOKENS
    return value if good else 0
