"""How the items of each kind that reads text become rows."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from llmos.abi.blob import BlobRef
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.params import Answers, Fill, Texts, Write, ZeroShot, convert
from llmos.drivers.encoder.payload import Item, Row
from llmos.drivers.encoder.texts import Encoded, TextEncoder, Wanted, read_json
from llmos.errors import InvalidRequest, PayloadTooLarge

Result = Item | Exception


class Asked:
    """One request's items. `spilled` is the path of the file, once something was put there."""

    def __init__(
        self, items: list[Any], params: Any, blobs: list[BlobRef], room: int, spill: str
    ) -> None:
        self.items = items
        self.params = params
        self.blobs = blobs
        self.room = room
        self.spill = spill
        self.spilled = ""
        self._num_taken = 0

    def take_text(self, num_chars: int) -> None:
        """It is about to be read. Raises PayloadTooLarge."""
        self._take(num_chars, LIMITS.request_chars, "characters")

    def take_image(self, num_pixels: int) -> None:
        """It is about to be unpacked. Raises PayloadTooLarge."""
        self._take(num_pixels, LIMITS.request_pixels, "pixels")

    def _take(self, count: int, most: int, of: str) -> None:
        self._num_taken += count
        if self._num_taken > most:
            text = f"the inputs together are over {most} {of}: send fewer at once"
            raise PayloadTooLarge(text, param="inputs")


Reader = Callable[[Asked], Sequence[Result]]


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text, or two that belong together."""

    text: str
    text_pair: str | None = None


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: str
    text: str


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    question: Annotated[str, msgspec.Meta(min_length=1)]
    context: Annotated[str, msgspec.Meta(min_length=1)]


def _wanted(params: Texts, side: str, stride: int = 0, *, offsets: bool = False) -> Wanted:
    return Wanted(
        params.overflow, stride if params.stride is None else params.stride, side, offsets
    )


def shaped(items: list[Any], shape: type[Any], key: str) -> list[Any]:
    """Each item as its struct (a plain text is its field `key`), or what is wrong with it."""
    found: list[Any] = []
    for item in items:
        try:
            found.append(convert({key: item} if isinstance(item, str) else item, shape, "inputs"))
        except InvalidRequest as error:
            found.append(error)
    return found


def _encode(
    encoder: TextEncoder,
    asked: Asked,
    wanted: Wanted,
    read: list[Any],
    parts: Callable[[Any], Any],
    *,
    about: Callable[[Any], Any] = lambda _: None,
) -> list[Result]:
    """Rows of every item that has the right shape."""
    room = encoder.room(asked.room)
    texts = [parts(one) for one in read if not isinstance(one, Exception)]
    asked.take_text(encoder.weigh(texts, room, wanted))
    made = iter(encoder.encode(texts, room, wanted))
    found: list[Result] = []
    for one in read:
        if isinstance(one, Exception):
            found.append(one)
            continue
        encoded = next(made)
        if isinstance(encoded, Exception):
            found.append(encoded)
        else:
            found.append(Item(0, encoded.rows, about(one), encoded.note))
    return found


def read_pairs(encoder: TextEncoder, asked: Asked) -> list[Result]:
    """A text, or two that are judged together."""
    read = shaped(asked.items, Pair, "text")

    def parts(one: Pair) -> Any:
        return one.text if one.text_pair is None else (one.text, one.text_pair)

    return _encode(encoder, asked, _wanted(asked.params, "longest_first"), read, parts)


def read_documents(encoder: TextEncoder, asked: Asked) -> list[Result]:
    """A document is cut, a query never."""
    read = shaped(asked.items, Document, "text")
    wanted = _wanted(asked.params, "second")
    return _encode(encoder, asked, wanted, read, lambda one: (one.query, one.text))


def read_zero_shot(encoder: TextEncoder, asked: Asked) -> list[Result]:
    """A row for each label: does "This example is {label}." follow from the text?"""
    params: ZeroShot = asked.params
    if params.overflow == "window":
        raise InvalidRequest("a text is not read in windows for this", param="params.overflow")
    if "{}" not in params.hypothesis_template:
        raise InvalidRequest("it has no {} for the label", param="params.hypothesis_template")
    hypotheses = [params.hypothesis_template.replace("{}", x) for x in params.candidate_labels]
    wanted, room = _wanted(params, "first"), encoder.room(asked.room)
    if (num_rows := len(asked.items) * len(hypotheses)) > LIMITS.num_rows:
        text = f"{num_rows} texts with labels are over {LIMITS.num_rows}: send fewer at once"
        raise PayloadTooLarge(text, param="inputs")
    found: list[Result] = []
    for one in shaped(asked.items, Pair, "text"):
        if isinstance(one, Exception):
            found.append(one)
            continue
        pairs = [(one.text, h) for h in hypotheses]
        asked.take_text(encoder.weigh(pairs, room, wanted))
        made = encoder.encode(pairs, room, wanted)
        wrong = next((m for m in made if isinstance(m, Exception)), None)
        good = [m for m in made if isinstance(m, Encoded)]
        rows = [m.rows[0] for m in good]
        found.append(wrong or Item(0, rows, None, next((m.note for m in good if m.note), "")))
    return found


def read_entities(encoder: TextEncoder, asked: Asked) -> list[Result]:
    """Rows that know which characters their tokens stand for."""
    room = encoder.room(asked.room)
    wanted = _wanted(asked.params, "first", room // 4, offsets=True)
    read = shaped(asked.items, Pair, "text")
    return _encode(encoder, asked, wanted, read, lambda one: one.text, about=lambda one: one.text)


def read_questions(encoder: TextEncoder, asked: Asked) -> list[Result]:
    """`special` marks all but the context's tokens here: an answer lies in none of those."""
    params: Answers = asked.params
    wanted = _wanted(params, "second", min(128, encoder.room(asked.room) // 2), offsets=True)
    wanted = wanted._replace(is_pair=True)
    read = shaped(asked.items, Question, "context")
    return _encode(
        encoder,
        asked,
        wanted,
        read,
        lambda one: (one.question, one.context),
        about=lambda one: one.context,
    )


class FillReader:
    """Needs to know which token is the gap."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self._encoder = encoder
        said = read_json(folder / "tokenizer_config.json").get("mask_token")
        mask = said.get("content") if isinstance(said, dict) else said
        self._mask = mask if isinstance(mask, str) else "[MASK]"
        self._mask_id = encoder.tokenizer.token_to_id(self._mask)

    def __call__(self, asked: Asked) -> list[Result]:
        params: Fill = asked.params
        if params.overflow == "window":
            raise InvalidRequest("a text is not read in windows for this", param="params.overflow")
        targets = None if params.targets is None else self._targets(params.targets)
        read = shaped(asked.items, Pair, "text")
        wanted = _wanted(params, "first")
        made = _encode(self._encoder, asked, wanted, read, lambda one: one.text)
        return [self._with_gaps(one, targets) for one in made]

    def _with_gaps(self, one: Result, targets: list[int] | None) -> Result:
        if isinstance(one, Exception):
            return one
        ids = array("i", one.rows[0].tokens)
        gaps = [i for i, token in enumerate(ids) if token == self._mask_id]
        if not gaps:
            where = f" in what was read of it ({one.note})" if one.note else ""
            return InvalidRequest(f"the text has no {self._mask}{where}")
        return Item(0, one.rows, {"gaps": gaps, "targets": targets}, one.note)

    def _targets(self, targets: list[str]) -> list[int]:
        """A word that is no token stands for its first one, as in Transformers."""
        found = []
        for target in targets:
            token = self._encoder.tokenizer.token_to_id(target)
            if token is None:
                ids = self._encoder.tokenizer.encode(target, add_special_tokens=False).ids
                token = ids[0] if ids else None
            if token is not None and token not in found:
                found.append(token)
        if not found:
            raise InvalidRequest("none of them is in the vocabulary", param="params.targets")
        return found


def read_vectors(encoder: TextEncoder, asked: Asked) -> list[Result]:
    """A text, or token ids as they are: OpenAI takes both."""
    room, wanted = encoder.room(asked.room), _wanted(asked.params, "first")
    texts = [one for one in asked.items if not isinstance(one, list)]
    made = iter(_encode(encoder, asked, wanted, shaped(texts, Pair, "text"), lambda one: one.text))
    vocab_size = encoder.tokenizer.get_vocab_size(with_added_tokens=True)
    return [
        _tokens(one, room, asked.params.overflow, vocab_size)
        if isinstance(one, list)
        else next(made)
        for one in asked.items
    ]


def _tokens(ids: list[Any], room: int, overflow: str, vocab_size: int) -> Result:
    wrong = next((i for i in ids if type(i) is not int or not 0 <= i < vocab_size), None)
    if wrong is not None or not ids:
        what = "there are no tokens" if not ids else f"{str(wrong)[:40]} is not in the vocabulary"
        return InvalidRequest(what, param="input")
    windows = [ids[i : i + room] for i in range(0, len(ids), room)]
    note = ""
    if len(windows) > 1:
        if overflow == "refuse" or len(windows) > LIMITS.num_windows:
            return InvalidRequest(f"{len(ids)} tokens, and the model reads {room}", param="input")
        windows = windows if overflow == "window" else windows[:1]
        note = f"read in {len(windows)} windows" if overflow == "window" else f"cut to {room}"
    return Item(0, [Row(len(w), array("i", w).tobytes()) for w in windows], None, note)


class WriteReader:
    """Text for a model that answers with text."""

    def __init__(
        self, encoder: TextEncoder, config: dict[str, Any], folder: Path, kind: str
    ) -> None:
        self._encoder = encoder
        self._prefix = _prefix(config, kind)

    def __call__(self, asked: Asked) -> list[Result]:
        params: Write = asked.params
        if params.overflow == "window":
            raise InvalidRequest("a text is not read in windows for this", param="params.overflow")
        prefix = self._prefix if params.prefix is None else params.prefix
        read = shaped(asked.items, Pair, "text")
        wanted = _wanted(params, "first")
        about = self._about(params.target_lang)
        return _encode(
            self._encoder,
            asked,
            wanted,
            read,
            lambda one: prefix + one.text,
            about=lambda _: about,
        )

    def _about(self, language: str | None) -> dict[str, Any] | None:
        """Of an answer in one language, the token that it begins with."""
        if language is None:
            return None
        names = (language, f"__{language}__", f"<2{language}>")
        tokens = (self._encoder.tokenizer.token_to_id(name) for name in names)
        token = next((found for found in tokens if found is not None), None)
        if token is None:
            raise InvalidRequest(
                f"the model has no token for {language[:40]!r}", param="params.target_lang"
            )
        return {"forced": [token]}


def _prefix(config: dict[str, Any], kind: str) -> str:
    """T5's `task_specific_params` name the words a task begins with; of translations the first."""
    tasks = config.get("task_specific_params")
    for name, settings in (tasks if isinstance(tasks, dict) else {}).items():
        if name.startswith(kind) and isinstance(settings, dict):
            prefix = settings.get("prefix")
            return prefix if isinstance(prefix, str) else ""
    return ""
