"""Images as squares of one size and once more as a whole, with words around each: what Idefics3's
and SmolVLM's processors make of them.

Transformers' own need torchvision, or their copies for PIL; numbers are those of the latter. PIL
and NumPy, no torch.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.texts import read_json
from llmos.drivers.pictures import Pixels
from llmos.drivers.vision.tiles import check_done, count_of
from llmos.errors import ModelRejected, PayloadTooLarge
from llmos.weights.seeing import SPLIT_TOKENS, find_tower

FAKE, WHOLE = "<fake_token_around_image>", "<global-img>"
"""Words around images."""

_EDGE, _SIZE = 364, 4 * 364
_MOST = 4096
"""Pixels of a side, whatever a processor says: its own bound."""

_LANCZOS = 1


class SplitReader:
    """By the settings of a folder's processor. Raises ModelRejected."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        check_done(settings)
        tower = find_tower(folder)
        assert tower is not None
        self._num_tokens = tower.num_tokens
        said = read_json(folder / "processor_config.json").get("image_seq_len", self._num_tokens)
        if said != self._num_tokens:
            raise ModelRejected(
                f"processor_config.json: image_seq_len {str(said)[:40]}, but the model has "
                f"{self._num_tokens} tokens for a square"
            )
        self._edge = count_of(_size(settings, "max_image_size", _EDGE), "longest_edge", _EDGE)
        if self._edge != tower.image_size:
            raise ModelRejected(
                f"preprocessor_config.json: max_image_size {self._edge}, but the tower of the "
                f"model has an image_size of {tower.image_size}"
            )
        longest = count_of(_size(settings, "size", _SIZE), "longest_edge", _SIZE)
        self._longest = min(longest, _MOST, self._edge * _most_rows(self._num_tokens))
        self._splits = settings.get("do_image_splitting", True) is not False
        self._resample = int(settings.get("resample", _LANCZOS))
        self._scale = np.float32(settings.get("rescale_factor", 1 / 255))
        self._mean = np.array(settings.get("image_mean", [0.5] * 3), dtype=np.float32)
        self._std = np.array(settings.get("image_std", [0.5] * 3), dtype=np.float32)

    def __call__(self, image: Any) -> list[str | Pixels]:
        """Row by row, the whole last. Raises PayloadTooLarge."""
        edge = self._edge
        if edge * edge > LIMITS.image_pixels:
            raise PayloadTooLarge(f"the image would be read in squares of {edge} x {edge}")
        image = image.resize(self._resized(image.width, image.height), self._resample)
        rows, columns = 0, 0
        if self._splits:
            image = image.resize(self._filled(image.width, image.height), self._resample)
            if max(image.width, image.height) > edge:
                rows, columns = image.height // edge, image.width // edge
        made: list[str | Pixels] = []
        for row in range(rows):
            for column in range(columns):
                box = (column * edge, row * edge, (column + 1) * edge, (row + 1) * edge)
                made += [f"{FAKE}<row_{row + 1}_col_{column + 1}>", self._pixels(image.crop(box))]
            made.append("\n")
        whole = self._pixels(image.resize((edge, edge), self._resample))
        return [*made, ("\n" if rows else "") + FAKE + WHOLE, whole, FAKE]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """The longer side as long as it is wanted, be the image smaller or larger."""
        ratio, longest = width / height, self._longest
        if width >= height:
            short = int(longest / ratio)
            return longest, max(1, short + short % 2)
        short = int(longest * ratio)
        return max(1, short + short % 2), longest

    def _filled(self, width: int, height: int) -> tuple[int, int]:
        """Whole squares, the sides nearly as they were."""
        ratio = width / height
        if width >= height:
            width = self._whole(width)
            return width, self._whole(int(width / ratio))
        height = self._whole(height)
        return self._whole(int(height * ratio)), height

    def _whole(self, side: int) -> int:
        return max(1, math.ceil(side / self._edge)) * self._edge

    def _pixels(self, image: Any) -> Pixels:
        pixels_HWC = np.asarray(image, dtype=np.float32)
        pixels_CHW = ((pixels_HWC * self._scale - self._mean) / self._std).transpose(2, 0, 1)
        return Pixels(np.ascontiguousarray(pixels_CHW), self._num_tokens, [])


def _most_rows(num_tokens: int) -> int:
    """Of squares, of an image of as many columns and its whole."""
    return max(1, math.isqrt(max(0, SPLIT_TOKENS // num_tokens - 1)))


def _size(settings: dict[str, Any], name: str, unsaid: int) -> dict[str, Any]:
    found = settings.get(name, {"longest_edge": unsaid})
    if not isinstance(found, dict) or "longest_edge" not in found:
        raise ModelRejected(f"preprocessor_config.json: {name} has no longest_edge")
    return found
