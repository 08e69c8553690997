"""Images to pixels as the folder's `preprocessor_config.json` wants them. PIL and NumPy, no torch.

What Transformers' processors of these families do, in their order: resize, cut out the middle,
scale, normalize.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import contextlib
import hashlib
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmos.abi.blob import BlobRef
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.payload import Item, Row
from llmos.drivers.encoder.rows import Asked, Result
from llmos.drivers.encoder.settings import (
    FILE,
    Colours,
    flag_of,
    number_of,
    read_settings,
    size_of,
)
from llmos.drivers.encoder.spill import Spill
from llmos.errors import InvalidRequest, LLMOSError, ModelRejected, PayloadTooLarge, PluginError

PATCH_PIXELS = 256
"""Pixels that cost as much as a token: those of a patch of 16 x 16."""

STRIP_PIXELS = 1 << 20
"""Of an image with transparent parts, that are put on white at once."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Files that are read. Pillow knows more: some run programs, none is sent by anybody."""

KNOWN = frozenset(
    {"BeitImageProcessor", "BitImageProcessor", "ConvNextImageProcessor", "DeiTImageProcessor"}
    | {"BlipImageProcessor", "DetrImageProcessor", "ViTImageProcessor", "YolosImageProcessor"}
    | {"CLIPImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor"}
)
"""Processors whose settings are read here, by name."""

_CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_MEANS = {
    "BitImageProcessor": _CLIP,
    "BlipImageProcessor": _CLIP,
    "CLIPImageProcessor": _CLIP,
    "DetrImageProcessor": _IMAGENET,
    "LlavaImageProcessor": _CLIP,
    "YolosImageProcessor": _IMAGENET,
}
"""Means and deviations of colours where a folder does not say; a half for others."""

_BILINEAR, _BICUBIC = 2, 3
_FILTERS = {
    "BeitImageProcessor": _BICUBIC,
    "BitImageProcessor": _BICUBIC,
    "BlipImageProcessor": _BICUBIC,
    "CLIPImageProcessor": _BICUBIC,
    "ConvNextImageProcessor": _BICUBIC,
    "DeiTImageProcessor": _BICUBIC,
    "LlavaImageProcessor": _BICUBIC,
    "SiglipImageProcessor": _BICUBIC,
}
"""Of resizing, where a folder does not say."""

_CUT_OUT = {"size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True}
_UNSAID: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CUT_OUT,
    "LlavaImageProcessor": _CUT_OUT,
}
"""Of other settings, likewise."""

_OF_NOTES = (struct.error, KeyError, SyntaxError, TypeError, ValueError, ZeroDivisionError)
_OF_EDGES = {"DetrImageProcessor", "YolosImageProcessor"}


class ImageReader:
    """Behind `rows.Reader`."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelRejected, PluginError where Pillow is missing."""
        _pillow()
        self._kind, said = read_settings(folder)
        if self._kind not in KNOWN:
            raise ModelRejected(f"{FILE}: {self._kind[:80]} is not supported")
        settings = _UNSAID.get(self._kind, {}) | said
        means, deviations = _MEANS.get(self._kind, ([0.5] * 3, [0.5] * 3))
        resample = _FILTERS.get(self._kind, _BILINEAR)
        self._colours = Colours(settings, means, deviations, resample)
        self._is_resized = flag_of(settings, "do_resize", True)
        self._size = size_of(settings, "size")
        self._part: tuple[int, int] | None = None
        if flag_of(settings, "do_center_crop", False):
            self._part = _sides(
                size_of(settings, "crop_size" if "crop_size" in settings else "size")
            )
        self._share = number_of(settings, "crop_pct", 224 / 256)

    def __call__(self, asked: Asked) -> Sequence[Result]:
        with Spill(asked.spill) as spill:
            found: list[Result] = []
            for item in asked.items:
                try:
                    found.append(self.read(asked, item, spill))
                except LLMOSError as error:
                    found.append(error)
            asked.spilled = spill.path
            return found

    def read(self, asked: Asked, item: Any, spill: Spill) -> Item:
        """One image as a row of pixels. Raises InvalidRequest, PayloadTooLarge."""
        spill.check()
        image = open_image(read_blob(blob_of(item, asked.blobs), LIMITS.image_bytes), asked)
        width, height = image.size
        pixels_CHW = self.pixels(image)
        cost = max(1, pixels_CHW.shape[1] * pixels_CHW.shape[2] // PATCH_PIXELS)
        row = Row(cost, start=spill.add(pixels_CHW), shape=list(pixels_CHW.shape))
        return Item(0, [row], {"width": width, "height": height})

    def pixels(self, image: Any) -> Any:
        """Of an image, CHW. Raises PayloadTooLarge."""
        if self._is_resized:
            image = self._resized(image)
        if self._part is not None:
            image = _middle(image, *self._part)
        return np.ascontiguousarray(self._colours(image).transpose(2, 0, 1), dtype=np.float32)

    def _resized(self, image: Any) -> Any:
        size, resample = self._size, self._colours.resample
        width, height = image.size
        if self._kind in _OF_EDGES and "shortest_edge" in size:
            target = _within(width, height, size["shortest_edge"], size.get("longest_edge"))
            return _scaled(image, target, resample)
        if self._kind == "ConvNextImageProcessor":
            edge = size["shortest_edge"] if "shortest_edge" in size else size["height"]
            if edge >= 384:
                return image.resize((edge, edge), resample)
            wide = max(1, int(edge / self._share))
            return _middle(_scaled(image, _shortest(width, height, wide), resample), edge, edge)
        if "shortest_edge" in size:
            return _scaled(image, _shortest(width, height, size["shortest_edge"]), resample)
        return image.resize((size["width"], size["height"]), resample)


def blob_of(item: Any, blobs: list[BlobRef]) -> BlobRef:
    """The file of an item `{"blob": N}`. Raises InvalidRequest."""
    at = item.get("blob") if isinstance(item, dict) and len(item) == 1 else None
    if type(at) is not int or not 0 <= at < len(blobs):
        raise InvalidRequest('an image is {"image": base64}, a recording {"audio": base64}')
    return blobs[at]


def read_blob(blob: BlobRef, max_bytes: int) -> bytes:
    """Its bytes, which are what the digest says: whoever names a file knows what is in it.

    Raises PayloadTooLarge, InvalidRequest.
    """
    if blob.size_bytes > max_bytes:
        raise PayloadTooLarge(f"{blob.size_bytes} bytes are over the limit of {max_bytes}")
    try:
        data = Path(blob.path or "").read_bytes()
    except OSError as error:
        raise InvalidRequest(f"the file is gone: {error.strerror}") from None
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
        raise InvalidRequest("the file is not the one that was named")
    return data


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise PluginError("images need Pillow: pip install 'llmos[images]'") from None
    return Image


def blank_image() -> Any:
    """A small one. Raises PluginError where Pillow is missing."""
    return _pillow().new("RGB", (8, 8))


def open_image(data: bytes, asked: Asked) -> Any:
    """As RGB, the way up that its file says, on white where it is transparent. Raises
    InvalidRequest, PayloadTooLarge."""
    pillow = _pillow()
    most = LIMITS.image_pixels
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > most:
            raise PayloadTooLarge(f"{width} x {height} pixels are over {most}")
        asked.take_image(width * height)
        image.load()
        return _on_white(_upright(image))
    except LLMOSError:
        raise
    except pillow.UnidentifiedImageError:  # it would name an object in memory
        text = f"it is no image that can be read: none of {', '.join(FORMATS)}"
        raise InvalidRequest(text) from None
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        raise PayloadTooLarge(f"the image's pixels are over {most}") from None
    except Exception as error:  # of a library that reads what nobody vouches for
        raise InvalidRequest(f"it is no image that can be read: {str(error)[:200]}") from error


def _upright(image: Any) -> Any:
    """As a camera's note of how it was held says. One that cannot be read says nothing: the
    errors are those that Pillow itself lets pass there."""
    from PIL import ImageOps

    with contextlib.suppress(*_OF_NOTES):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _on_white(image: Any) -> Any:
    """As Transformers' `convert_to_rgb` has it, in strips: nothing of the image's own size is made
    but what comes out."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    pillow = _pillow()
    made = pillow.new("RGB", image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        strip = image.crop(box).convert("RGBA")
        white = pillow.new("RGBA", strip.size, (255, 255, 255, 255))
        made.paste(pillow.alpha_composite(white, strip).convert("RGB"), box[:2])
    return made


def _scaled(image: Any, target: tuple[int, int], resample: int) -> Any:
    """A narrow image whose short side is made longer grows without bound. Raises
    PayloadTooLarge."""
    width, height = target
    if width * height > LIMITS.image_pixels:
        raise PayloadTooLarge(
            f"an image of {image.width} x {image.height} would be read as {width} x {height}"
        )
    return image.resize(target, resample)


def _sides(size: dict[str, int]) -> tuple[int, int]:
    """Height and width. Raises ModelRejected."""
    if "height" not in size:
        raise ModelRejected(f"{FILE}: what is cut out has no height and width")
    return size["height"], size["width"]


def _shortest(width: int, height: int, edge: int) -> tuple[int, int]:
    """The size whose shorter side is `edge`, as torchvision rounds it."""
    short, long = (width, height) if width <= height else (height, width)
    other = int(edge * long / short)
    return (edge, other) if width <= height else (other, edge)


def _within(width: int, height: int, shortest: int, longest: int | None) -> tuple[int, int]:
    """As `_shortest`, with the longer side no longer than `longest`; DETR's own rounding."""
    size, raw = shortest, None
    if longest is not None:
        small, large = float(min(width, height)), float(max(width, height))
        if large / small * size > longest:
            raw = longest * small / large
            size = round(raw)
    if (height <= width and height == size) or (width <= height and width == size):
        return width, height
    scale = size if raw is None or longest is None else raw
    if width < height:
        return size, int(scale * height / width)
    return int(scale * width / height), size


def _middle(image: Any, height: int, width: int) -> Any:
    """Cut out; what is missing is black."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
