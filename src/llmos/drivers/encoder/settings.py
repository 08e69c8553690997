"""Settings of a folder's image processor, which nobody vouches for. NumPy, no torch.

What is null is as if it were not there, as it is to Transformers. Whatever else is wrong is a
ModelRejected when a reader is made, so none fails at an image.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.texts import read_json
from llmos.errors import ModelRejected

FILE = "preprocessor_config.json"

NUM_FILTERS = 6
"""Of resizing, by Pillow's numbers from 0 on."""

_EDGE = 224
_LARGEST = float(np.finfo(np.float32).max)


def read_settings(folder: Path) -> tuple[str, dict[str, Any]]:
    """Of images: the processor's name, and what the folder says of it, in a file of its own or
    among those of all its processors."""
    settings = read_json(folder / FILE)
    if not settings:
        found = read_json(folder / "processor_config.json").get("image_processor")
        settings = found if isinstance(found, dict) else {}
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    name = str(name).removesuffix("Fast").removesuffix("Pil")
    said = {key: value for key, value in settings.items() if value is not None}
    return name.replace("FeatureExtractor", "ImageProcessor"), said


def count_of(fields: dict[str, Any], name: str, unsaid: Any, most: int = 1 << 31) -> int:
    """From 1 on. Raises ModelRejected."""
    found = fields.get(name)
    found = unsaid if found is None else found
    if type(found) is not int or not 1 <= found <= most:
        raise ModelRejected(f"{FILE}: {name} is no count up to {most}")
    return found


def flag_of(settings: dict[str, Any], name: str, unsaid: bool) -> bool:
    """Raises ModelRejected."""
    found = settings.get(name)
    found = unsaid if found is None else found
    if type(found) is not bool:
        raise ModelRejected(f"{FILE}: {name} is neither true nor false")
    return found


def number_of(settings: dict[str, Any], name: str, unsaid: float) -> float:
    """Not 0. Raises ModelRejected."""
    found = settings.get(name)
    (number,) = _numbers(name, [unsaid if found is None else found])
    if np.float32(number) == 0:
        raise ModelRejected(f"{FILE}: {name} is 0")
    return number


def size_of(settings: dict[str, Any], name: str) -> dict[str, int]:
    """`height` and `width`, or `shortest_edge` and, where it has one, `longest_edge`. One number is
    that of a square's side. Raises ModelRejected."""
    said = settings.get(name)
    said = _EDGE if said is None else said
    if not isinstance(said, dict):
        side = count_of({name: said}, name, None)
        said = {"height": side, "width": side}
    if "shortest_edge" in said:
        found = {"shortest_edge": count_of(said, "shortest_edge", None)}
        sides = found["shortest_edge"], found["shortest_edge"]
        if said.get("longest_edge") is not None:
            found["longest_edge"] = count_of(said, "longest_edge", None)
    else:
        found = {side: count_of(said, side, None) for side in ("height", "width")}
        sides = found["height"], found["width"]
    if sides[0] * sides[1] > LIMITS.image_pixels:
        raise ModelRejected(f"{FILE}: {name} is over {LIMITS.image_pixels} pixels")
    return found


class Colours:
    """Of an image, as numbers: `resample` is how it is resized, by Pillow's number. Raises
    ModelRejected."""

    def __init__(
        self,
        settings: dict[str, Any],
        mean: Sequence[float],
        std: Sequence[float],
        resample: int,
    ) -> None:
        found = settings.get("resample")
        self.resample: int = resample if found is None else found
        if type(self.resample) is not int or not 0 <= self.resample < NUM_FILTERS:
            raise ModelRejected(f"{FILE}: resample is none of Pillow's {NUM_FILTERS} filters")
        scale = number_of(settings, "rescale_factor", 1 / 255)
        means = _three(settings, "image_mean", mean)
        deviations = _three(settings, "image_std", std)
        if not flag_of(settings, "do_rescale", True):
            scale = 1.0
        if not flag_of(settings, "do_normalize", True):
            means, deviations = [0.0] * 3, [1.0] * 3
        self._scale = np.float32(scale)
        self._mean = np.array(means, dtype=np.float32)
        self._std = np.array(deviations, dtype=np.float32)
        if not self._std.all():
            raise ModelRejected(f"{FILE}: image_std has a 0")
        with np.errstate(all="ignore"):
            ends_HWC = self(np.array([[[0] * 3, [255] * 3]]))  # what is between is between
        if not np.isfinite(ends_HWC).all():
            raise ModelRejected(
                f"{FILE}: rescale_factor, image_mean and image_std make colours that are not finite"
            )

    def __call__(self, image: Any) -> Any:
        """HWC."""
        pixels_HWC = np.asarray(image, dtype=np.float32)
        return (pixels_HWC * self._scale - self._mean) / self._std


def _three(settings: dict[str, Any], name: str, unsaid: Sequence[float]) -> list[float]:
    found = settings.get(name)
    found = list(unsaid) if found is None else found
    if not isinstance(found, list) or len(found) != 3:
        raise ModelRejected(f"{FILE}: {name} is no list of three numbers")
    return _numbers(name, found)


def _numbers(name: str, found: list[Any]) -> list[float]:
    """NaN is within no bounds."""
    if not all(type(one) in (int, float) and abs(one) <= _LARGEST for one in found):
        raise ModelRejected(f"{FILE}: {name} is no finite number")
    return [float(one) for one in found]
