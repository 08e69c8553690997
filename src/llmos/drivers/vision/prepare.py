"""Chats with images to tokens and pixels, for models that read both. Torch-free.

The template writes one token for an image, which becomes as many as the image is to the model; the
numbers are those of Transformers' processors.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.inference import ChatPrompt, Prepared, PrepareItem
from llmos.drivers.encoder.images import (
    ImageReader,
    open_image,
    read_blob,
    read_settings,
)
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.rows import Asked
from llmos.drivers.encoder.spill import Spill
from llmos.drivers.encoder.texts import read_json
from llmos.drivers.items import IMAGES
from llmos.drivers.pictures import Picture, Pixels, encode_pictures
from llmos.drivers.text.prepare import FileTokenizer, TextPreparer, read_template
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


PROCESSORS = {
    Family.FIXED: ("CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor"),
    Family.TILED: ("Qwen2VLImageProcessor",),
}
"""Whose settings are read here, by name. Transformers' own of the tiled ones needs torchvision."""


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
        token = config.get("image_token_id", config.get("image_token_index"))
        if not isinstance(token, int):
            raise ModelRejected("config.json: image_token_id is missing")
        self._token = token
        self._word = tokenizer.find_text(token)
        self._reader = make_reader(folder, config)

    def prepare(self, item: PrepareItem) -> Prepared:
        """Tokens of the prompt, and the pixels of its images. Raises InvalidRequest."""
        prepared = super().prepare(item)
        prompt = item.prompt
        parts = list(_images(prompt.messages)) if isinstance(prompt, ChatPrompt) else []
        if not parts:
            return prepared
        assert isinstance(prompt, ChatPrompt)
        ids = array("i", prepared.tokens)
        if (num_places := ids.count(self._token)) != len(parts):
            raise InvalidRequest(
                f"{len(parts)} images, and {num_places} places for one once the chat template "
                f"has been applied: no text may have {self._word!r}",
                param=parts[0]["where"],
            )
        with Spill(item.spill) as spill:
            asked = Asked([], None, prompt.blobs, 0, "")
            room = _Room(item.context_length, len(ids) - len(parts))
            found = [self._read(part, asked, spill, room) for part in parts]
            tokens, pictures = _expanded(ids, self._token, found)
            return msgspec.structs.replace(
                prepared,
                tokens=tokens.tobytes(),
                num_tokens=len(tokens),
                payload=encode_pictures(pictures),
                spill=spill.path,
            )

    def _read(
        self, part: dict[str, Any], asked: Asked, spill: Spill, room: _Room
    ) -> tuple[int, Pixels]:
        """Where its pixels begin, and their shape. What is wrong with it names it."""
        try:
            data = read_blob(asked.blobs[part["blob"]], LIMITS.image_bytes)
            pixels = self._reader(open_image(data, asked))
            room.take(pixels.num_tokens)
            start = spill.add(pixels.values)
            return start, pixels._replace(values=list(pixels.values.shape))
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

    def take(self, num_tokens: int) -> None:
        """Raises PayloadTooLarge, ContextLengthExceeded."""
        self._num_seen += num_tokens
        if num_tokens > IMAGE_TOKENS:
            raise PayloadTooLarge(f"the image is {num_tokens} tokens, over {IMAGE_TOKENS}")
        if self._num_seen > REQUEST_TOKENS:
            raise PayloadTooLarge(f"the images are over {REQUEST_TOKENS} tokens together")
        needed = self._num_text + self._num_seen
        if self._context_length and needed >= self._context_length:
            raise ContextLengthExceeded(
                f"the model has a context of {self._context_length} tokens; the prompt has "
                f"{needed} with this image"
            )


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


def _expanded(
    ids: array[int], token: int, found: list[tuple[int, Pixels]]
) -> tuple[array[int], list[Picture]]:
    """The token of each image as often as it has tokens, and where that is."""
    made, pictures = array("i"), []
    images = iter(found)
    for one in ids:
        if one != token:
            made.append(one)
            continue
        start, pixels = next(images)
        begin = len(made)
        made.extend([token] * pixels.num_tokens)
        pictures.append(Picture(begin, len(made), start, pixels.values, pixels.grid))
    return made, pictures


class FixedReader:
    """Every image as one square of patches, each of which is a token."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Raises ModelRejected."""
        self._reader = ImageReader(folder)
        vision = config.get("vision_config") or {}
        self._patch = _count(vision, "patch_size", 14)
        has_class = vision.get("model_type", "clip_vision_model") == "clip_vision_model"
        is_cut = config.get("vision_feature_select_strategy", "default") == "default"
        self._num_more = int(has_class) - int(is_cut)

    def __call__(self, image: Any) -> Pixels:
        pixels_CHW = self._reader.pixels(image)  # noqa: N806 (its shape)
        _, height, width = pixels_CHW.shape
        num_tokens = (height // self._patch) * (width // self._patch) + self._num_more
        return Pixels(pixels_CHW, num_tokens, [])


def make_reader(folder: Path, config: dict[str, Any]) -> FixedReader | TileReader:
    """By the model's architecture and its processor. Raises ModelRejected, PluginError."""
    architecture = (config.get("architectures") or [""])[0]
    family = SEEING.get(str(architecture))
    if family is None:
        raise ModelRejected(f"config.json: {architecture!r} is not known to read images")
    name, settings = read_settings(folder)
    if name not in PROCESSORS[family]:
        raise ModelRejected(
            f"the images of {architecture} are prepared by {name[:80]}, which is not supported: "
            f"{', '.join(PROCESSORS[family])} is"
        )
    if family is Family.FIXED:
        if settings.get("do_pad"):
            raise ModelRejected(f"{name}: do_pad is not supported")
        return FixedReader(folder, config)
    return TileReader(settings)


def _count(fields: dict[str, Any], name: str, unsaid: int) -> int:
    found = fields.get(name, unsaid)
    if type(found) is not int or found < 1:
        raise ModelRejected(f"config.json: {name} is no count")
    return found
