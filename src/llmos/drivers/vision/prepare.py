"""Chats with images to tokens and pixels, for models that read both. Torch-free.

The template writes one token for an image, which becomes as many as the image is to the model, of
some models in parts with words around them; the numbers are those of Transformers' processors.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llmos.abi.inference import ChatPrompt, Prepared, PrepareItem
from llmos.drivers.encoder.images import (
    ImageReader,
    blank_image,
    open_image,
    read_blob,
)
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.rows import Asked
from llmos.drivers.encoder.settings import flag_of, read_settings
from llmos.drivers.encoder.spill import Spill
from llmos.drivers.encoder.texts import read_json
from llmos.drivers.items import IMAGES
from llmos.drivers.pictures import Picture, Pixels, encode_pictures
from llmos.drivers.text.prepare import FileTokenizer, TextPreparer, read_template
from llmos.drivers.vision.splits import FAKE, SplitReader
from llmos.drivers.vision.tiles import TileReader
from llmos.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    LLMOSError,
    ModelRejected,
    PayloadTooLarge,
    UnsupportedParameter,
)
from llmos.shapes.refusals import NOTHING_FETCHED
from llmos.weights.seeing import IMAGE_TOKENS, REQUEST_TOKENS, SEEING, Family


def make(folder: str) -> SightPreparer:
    """The entry named by `ModelVersion.prepare`. Raises ModelRejected, PluginError."""
    path = Path(folder)
    tokenizer, specials, sources = read_template(path)
    return SightPreparer(path, tokenizer, specials, sources)


_MOST_TOKENS = 1 << 31
"""Of a vocabulary: they are of 32 bits."""

PROCESSORS = {
    Family.FIXED: ("CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor"),
    Family.TILED: ("Qwen2VLImageProcessor",),
    Family.SPLIT: ("Idefics3ImageProcessor", "SmolVLMImageProcessor"),
}
"""Whose settings are read here, by name. Transformers' own of most need torchvision."""

Read = Callable[[Any], list[str | Pixels]]
"""An image in its parts, and words between them. Raises InvalidRequest, PayloadTooLarge."""


class _Placed(NamedTuple):
    """One image: the tokens that stand in the place of its one, and where in them, and in the
    spilled file, its parts are."""

    tokens: array[int]
    pictures: list[Picture]


class SightPreparer(TextPreparer):
    """Behind `abi.Preparer`, for one model."""

    def __init__(
        self,
        folder: Path,
        tokenizer: FileTokenizer,
        specials: dict[str, str],
        sources: dict[str, str],
    ) -> None:
        """Raises ModelRejected, PluginError where Pillow is missing."""
        super().__init__(tokenizer, specials, sources)
        config = read_json(folder / "config.json")
        self._token, self._word = _image_word(config, tokenizer)
        self._read = make_reader(folder, config)
        if isinstance(self._read, SplitReader) and tokenizer.find_id(FAKE) is None:
            raise ModelRejected(f"tokenizer.json: {FAKE} is missing")

    def prepare(self, item: PrepareItem) -> Prepared:
        """Tokens of the prompt, and the pixels of its images. Raises InvalidRequest."""
        prompt = item.prompt
        if isinstance(prompt, ChatPrompt):
            self._check_texts(prompt.messages)
        prepared = super().prepare(item)
        parts = list(_images(prompt.messages)) if isinstance(prompt, ChatPrompt) else []
        if not parts:
            return prepared
        assert isinstance(prompt, ChatPrompt)
        ids = array("i", prepared.tokens)
        if (num_places := ids.count(self._token)) != len(parts):
            raise InvalidRequest(
                f"{len(parts)} images, and {num_places} places for one once the model's chat "
                f"template has been applied",
                param="messages",
            )
        with Spill(item.spill) as spill:
            asked = Asked([], None, prompt.blobs, 0, "")
            room = _Room(item.context_length, len(ids) - len(parts))
            images = [self._place(part, asked, spill, room) for part in parts]
            tokens, pictures = _expanded(ids, self._token, images)
            if max(tokens) >= item.vocab_size:
                raise ModelRejected(
                    "tokenizer.json: words around images are no tokens of the model"
                )
            return msgspec.structs.replace(
                prepared,
                tokens=tokens.tobytes(),
                num_tokens=len(tokens),
                payload=encode_pictures(pictures),
                spill=spill.path,
            )

    def _check_texts(self, messages: list[dict[str, Any]]) -> None:
        """An image's word in a text would become its token, with or without an image. Raises
        InvalidRequest."""
        for index, message in enumerate(messages):
            where, content = f"messages.{index}.content", message.get("content")
            texts = {where: content}
            if isinstance(content, list):
                texts = {f"{where}.{at}": part.get("text") for at, part in enumerate(content)}
            for at, text in texts.items():
                if isinstance(text, str) and self._word in text:
                    raise InvalidRequest(
                        f"{self._word!r} is the model's own word for an image: no text may have it",
                        param=at,
                    )

    def _place(self, part: dict[str, Any], asked: Asked, spill: Spill, room: _Room) -> _Placed:
        """Its pixels go into the file. What is wrong with it names it."""
        try:
            data = read_blob(asked.blobs[part["blob"]], LIMITS.image_bytes)
            parts = self._read(open_image(data, asked))
            seen = [one for one in parts if not isinstance(one, str)]
            text = "".join(one if isinstance(one, str) else self._word for one in parts)
            ids = self._encode(text, special=False) if len(parts) > 1 else [self._token]
            room.take(len(ids) - len(seen), [one.num_tokens for one in seen])
            return _spilled(ids, self._token, seen, spill)
        except LLMOSError as error:
            error.param = part["where"]
            raise

    def shown(self, message: dict[str, Any], index: int) -> dict[str, Any]:
        """Templates of such models go through parts; one that does not gets the image's word."""
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        made = super().shown(message | {"content": _texts_of(parts) if parts else content}, index)
        if "type" not in self.source(with_tools=False):
            if parts:
                made["content"] = "".join(part.get("text", self._word) for part in parts)
        elif parts:
            made["content"] = [
                part if part["type"] == "text" else {"type": "image"} for part in parts
            ]
        else:
            made["content"] = [{"type": "text", "text": made["content"]}]
        return made


class _Room:
    """Of a prompt, for images beside its text. `context_length`: 0 where that is not known."""

    def __init__(self, context_length: int, num_text: int) -> None:
        self._context_length = context_length
        self._num_text = num_text
        self._num_seen = 0

    def take(self, num_words: int, num_seen: list[int]) -> None:
        """An image in parts of `num_seen` tokens. Raises PayloadTooLarge, ContextLengthExceeded."""
        self._num_seen += num_words + sum(num_seen)
        if (most := max(num_seen)) > IMAGE_TOKENS:
            raise PayloadTooLarge(f"the image is {most} tokens, over {IMAGE_TOKENS}")
        if self._num_seen > REQUEST_TOKENS:
            raise PayloadTooLarge(f"the images are over {REQUEST_TOKENS} tokens together")
        needed = self._num_text + self._num_seen
        if self._context_length and needed >= self._context_length:
            raise ContextLengthExceeded(
                f"the model has a context of {self._context_length} tokens; the prompt has "
                f"{needed} with this image"
            )


def _image_word(config: dict[str, Any], tokenizer: FileTokenizer) -> tuple[int, str]:
    """The token that stands for an image, and how it is written. Raises ModelRejected."""
    names = ("image_token_id", "image_token_index")
    found = next((config[name] for name in names if config.get(name) is not None), None)
    if found is None:
        raise ModelRejected("config.json: image_token_id is missing")
    is_token = type(found) is int and 0 <= found < _MOST_TOKENS
    if not is_token or not (word := tokenizer.find_text(found)):
        raise ModelRejected(f"config.json: image_token_id {str(found)[:40]} is no token")
    return found, word


def _texts_of(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for part in parts if part.get("type") not in IMAGES]


def _images(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """In their order. Raises UnsupportedParameter for one that is elsewhere."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "image_url":
                raise UnsupportedParameter(NOTHING_FETCHED, param=f"{part['where']}.image_url.url")
            if part.get("type") == "image":
                yield part


def _spilled(ids: list[int], token: int, seen: list[Pixels], spill: Spill) -> _Placed:
    """The token of each part as often as it has tokens, and where that is. Raises ModelRejected,
    StorageError, PayloadTooLarge."""
    if ids.count(token) != len(seen):
        raise ModelRejected("tokenizer.json: the word for an image is not one token in a text")
    tokens, pictures = array("i"), []
    parts = iter(seen)
    for one in ids:
        if one != token:
            tokens.append(one)
            continue
        pixels, begin = next(parts), len(tokens)
        tokens.extend([token] * pixels.num_tokens)
        start, shape = spill.add(pixels.values), list(pixels.values.shape)
        pictures.append(Picture(begin, len(tokens), start, shape, pixels.grid))
    return _Placed(tokens, pictures)


def _expanded(
    ids: array[int], token: int, images: list[_Placed]
) -> tuple[array[int], list[Picture]]:
    """A prompt with all that stands for its images."""
    made, pictures = array("i"), []
    left = iter(images)
    for one in ids:
        if one != token:
            made.append(one)
            continue
        tokens, parts = next(left)
        pictures += [
            msgspec.structs.replace(p, begin=len(made) + p.begin, end=len(made) + p.end)
            for p in parts
        ]
        made.extend(tokens)
    return made, pictures


class FixedReader:
    """Every image as one square of patches, each of which is a token."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Raises ModelRejected."""
        self._reader = ImageReader(folder)
        vision = {} if config.get("vision_config") is None else config["vision_config"]
        if not isinstance(vision, dict):
            raise ModelRejected("config.json: vision_config is no object")
        self._patch = _count(vision, "patch_size", 14)
        has_class = vision.get("model_type", "clip_vision_model") == "clip_vision_model"
        is_cut = config.get("vision_feature_select_strategy", "default") == "default"
        self._num_more = int(has_class) - int(is_cut)

    def __call__(self, image: Any) -> list[str | Pixels]:
        pixels_CHW = self._reader.pixels(image)  # noqa: N806 (its shape)
        _, height, width = pixels_CHW.shape
        num_tokens = (height // self._patch) * (width // self._patch) + self._num_more
        return [Pixels(pixels_CHW, num_tokens, [])]


def make_reader(folder: Path, config: dict[str, Any]) -> Read:
    """By the model's architecture and its processor. Raises ModelRejected, PluginError."""
    named = config.get("architectures")
    architecture = str(named[0])[:80] if isinstance(named, list) and named else ""
    family = SEEING.get(architecture)
    if family is None:
        raise ModelRejected(f"config.json: {architecture!r} is not known to read images")
    name, settings = read_settings(folder)
    if name not in PROCESSORS[family]:
        raise ModelRejected(
            f"the images of {architecture} are prepared by {name[:80]}, which is not supported: "
            f"{', '.join(PROCESSORS[family])} is"
        )
    if family is Family.FIXED:
        if flag_of(settings, "do_pad", False):
            raise ModelRejected(f"{name}: do_pad is not supported")
        return FixedReader(folder, config)
    return TileReader(settings) if family is Family.TILED else SplitReader(folder, settings)


def read_blank(folder: Path) -> Pixels:
    """A small image, or a part of it, as a folder's model gets it. Raises ModelRejected,
    PluginError."""
    parts = make_reader(folder, read_json(folder / "config.json"))(blank_image())
    return next(part for part in parts if not isinstance(part, str))


def _count(fields: dict[str, Any], name: str, unsaid: int) -> int:
    found = fields.get(name)
    found = unsaid if found is None else found
    if type(found) is not int or found < 1:
        raise ModelRejected(f"config.json: {name} is no count")
    return found
