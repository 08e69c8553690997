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
from llmos.drivers.encoder.settings import FILE, Colours, count_of, flag_of
from llmos.drivers.encoder.texts import read_json
from llmos.drivers.floats import SIZE_BYTES
from llmos.drivers.pictures import Pixels
from llmos.drivers.vision.tiles import check_done
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
        said = read_json(folder / "processor_config.json").get("image_seq_len")
        if said is not None and said != self._num_tokens:
            raise ModelRejected(
                f"processor_config.json: image_seq_len {str(said)[:40]}, but the model has "
                f"{self._num_tokens} tokens for a square"
            )
        self._edge = count_of(_size(settings, "max_image_size", _EDGE), "longest_edge", _EDGE)
        if self._edge != tower.image_size:
            raise ModelRejected(
                f"{FILE}: max_image_size {self._edge}, but the tower of the "
                f"model has an image_size of {tower.image_size}"
            )
        if self._edge > _MOST:
            raise ModelRejected(f"{FILE}: max_image_size {self._edge} is over {_MOST}")
        longest = count_of(_size(settings, "size", _SIZE), "longest_edge", _SIZE)
        self._longest = min(longest, _MOST, self._edge * _most_rows(self._num_tokens))
        self._splits = flag_of(settings, "do_image_splitting", True)
        self._colours = Colours(settings, [0.5] * 3, [0.5] * 3, _LANCZOS)

    def __call__(self, image: Any) -> list[str | Pixels]:
        """Row by row, the whole last. Raises PayloadTooLarge."""
        edge, resample = self._edge, self._colours.resample
        width, height = self._resized(image.width, image.height)
        rows, columns = 0, 0
        if self._splits:
            filled = self._filled(width, height)
            if max(filled) > edge:
                columns, rows = filled[0] // edge, filled[1] // edge
        _check_room((rows * columns + 1) * edge * edge)
        image = image.resize((width, height), resample)
        if self._splits:
            image = image.resize(filled, resample)
        made: list[str | Pixels] = []
        for row in range(rows):
            for column in range(columns):
                box = (column * edge, row * edge, (column + 1) * edge, (row + 1) * edge)
                made += [f"{FAKE}<row_{row + 1}_col_{column + 1}>", self._pixels(image.crop(box))]
            made.append("\n")
        whole = self._pixels(image.resize((edge, edge), resample))
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
        pixels_CHW = self._colours(image).transpose(2, 0, 1)
        return Pixels(np.ascontiguousarray(pixels_CHW), self._num_tokens, [])


def _check_room(num_pixels: int) -> None:
    """All squares are in memory, and then in the spilled file. Raises PayloadTooLarge."""
    if (needed := 3 * SIZE_BYTES * num_pixels) > LIMITS.spill_bytes:
        raise PayloadTooLarge(
            f"the image would be {needed} bytes in squares, over {LIMITS.spill_bytes}"
        )


def _most_rows(num_tokens: int) -> int:
    """Of squares, of an image of as many columns and its whole."""
    return max(1, math.isqrt(max(0, SPLIT_TOKENS // num_tokens - 1)))


def _size(settings: dict[str, Any], name: str, unsaid: int) -> dict[str, Any]:
    found = settings.get(name)
    found = {"longest_edge": unsaid} if found is None else found
    if not isinstance(found, dict) or "longest_edge" not in found:
        raise ModelRejected(f"{FILE}: {name} has no longest_edge")
    return found
