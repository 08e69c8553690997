"""Images as patches, as many as their own size asks for: what Qwen2-VL's processor makes of them.

Transformers' own of that name needs torchvision, or its copy for PIL; numbers are those of the
latter. PIL and NumPy, no torch.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.settings import FILE, Colours, count_of, flag_of
from llmos.drivers.pictures import Pixels
from llmos.errors import InvalidRequest, ModelRejected, PayloadTooLarge
from llmos.weights.seeing import IMAGE_TOKENS

MAX_RATIO = 200
"""Of an image's sides."""

_SIZE = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
_MEAN = [0.48145466, 0.4578275, 0.40821073]
_STD = [0.26862954, 0.26130258, 0.27577711]
_BICUBIC = 3
_MOST_SIDE, _MOST_FRAMES = 1 << 13, 64


class TileReader:
    """By the settings of a folder's processor. Raises ModelRejected."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._patch = count_of(settings, "patch_size", 14, _MOST_SIDE)
        self._merge = count_of(settings, "merge_size", 2, _MOST_SIDE)
        self._frames = count_of(settings, "temporal_patch_size", 2, _MOST_FRAMES)
        said = settings.get("size")
        size = _SIZE | (said if isinstance(said, dict) else {})
        self._least = count_of(settings, "min_pixels", size["shortest_edge"])
        most = count_of(settings, "max_pixels", size["longest_edge"])
        self._most = min(most, IMAGE_TOKENS * (self._patch * self._merge) ** 2)
        self._colours = Colours(settings, _MEAN, _STD, _BICUBIC)
        check_done(settings)

    def __call__(self, image: Any) -> list[str | Pixels]:
        """A row of floats for each patch, those that become one token side by side. Raises
        InvalidRequest, PayloadTooLarge."""
        width, height = self._size(image.width, image.height)
        pixels_HWC = self._colours(image.resize((width, height), self._colours.resample))
        patch, merge = self._patch, self._merge
        rows, columns = height // patch // merge, width // patch // merge
        split = pixels_HWC.transpose(2, 0, 1).reshape(3, rows, merge, patch, columns, merge, patch)
        tokens = split.transpose(1, 4, 2, 5, 0, 3, 6)  # row, column, patches of a token, C, H, W
        patches = tokens.reshape(rows * columns * merge**2, 3, 1, patch**2)
        frames = np.repeat(patches, self._frames, axis=2)  # a still image is a film of that length
        values = frames.reshape(len(frames), -1).astype(np.float32)
        return [Pixels(values, rows * columns, [rows, columns])]

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """Whole tokens, within the bounds on pixels, the sides nearly as they were."""
        if max(width, height) > MAX_RATIO * min(width, height):
            raise InvalidRequest(f"one side of {width} x {height} is {MAX_RATIO} times the other")
        unit = self._patch * self._merge
        sides = [round(side / unit) * unit for side in (width, height)]
        if sides[0] * sides[1] > self._most:
            shrunk = math.sqrt(width * height / self._most)
            sides = [max(unit, math.floor(side / shrunk / unit) * unit) for side in (width, height)]
        elif sides[0] * sides[1] < self._least:
            grown = math.sqrt(self._least / (width * height))
            sides = [math.ceil(side * grown / unit) * unit for side in (width, height)]
        num_pixels = sides[0] * sides[1]
        if num_pixels > LIMITS.image_pixels or num_pixels // unit**2 > IMAGE_TOKENS:
            raise PayloadTooLarge(f"the image would be read as {sides[0]} x {sides[1]}")
        return sides[0], sides[1]


def check_done(settings: dict[str, Any]) -> None:
    """That nothing is left out. Raises ModelRejected."""
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not flag_of(settings, name, True):
            raise ModelRejected(f"{FILE}: {name} is not supported when false")
