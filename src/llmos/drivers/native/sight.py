"""Images in prompts: vectors of what is seen, where a prompt has tokens that only stand for it.

An image goes through the model's own vision tower by itself, when the first of its tokens is read,
so what is seen follows nobody else's; it is kept until the last of them has been read.

Legend: T tokens, N tokens of an image, H hidden units.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from llmos.abi.inference import WorkItem
from llmos.drivers.native.batch import Seen
from llmos.drivers.native.load import LoadedModel
from llmos.drivers.native.transfer import to_device
from llmos.drivers.pictures import Picture, decode_pictures, places_of
from llmos.errors import EngineFailed, InvalidRequest


class Sight:
    """Of one request. `lag`: how much less than its number the place of a token after the images
    is. `found` are vectors of images that are being read, by their number."""

    def __init__(self, pictures: list[Picture], spill: str, num_prompt: int) -> None:
        self.pictures = pictures
        self.spill = spill
        self.lag = 0
        self.found: dict[int, torch.Tensor] = {}
        self._places: list[list[int]] = []
        if all(picture.grid for picture in pictures):
            self._places, self.lag = places_of(num_prompt, pictures)

    def places(self, start: int, end: int) -> list[Sequence[int]]:
        """Of tokens: one list, or three."""
        if not self._places:
            return [range(start, end)]
        after = range(max(start, len(self._places[0])) - self.lag, end - self.lag)
        return [[*axis[start:end], *after] for axis in self._places]


def open_sight(item: WorkItem, num_prompt: int) -> Sight | None:
    """None: it has no images. Raises InvalidRequest."""
    pictures = decode_pictures(item.payload, num_prompt)
    return Sight(pictures, item.spill, num_prompt) if pictures else None


class Eyes:
    """Of a loaded model. Engine errors come out as they are."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._model: Any = loaded.model

    @torch.inference_mode()
    def read(self, sight: Sight, start: int, tokens: list[int]) -> Seen:
        """A chunk of the prompt: its vectors and their places. Raises EngineFailed."""
        end = start + len(tokens)
        (ids_T,) = to_device(self._loaded.device, tokens)
        vectors_TH = self._model.get_input_embeddings()(ids_T)
        for number, picture in enumerate(sight.pictures):
            first, last = max(start, picture.begin), min(end, picture.end)
            if first >= last:
                continue
            if number not in sight.found:
                sight.found[number] = self._look(picture, sight.spill)
            seen_NH = sight.found[number][first - picture.begin : last - picture.begin]
            vectors_TH[first - start : last - start] = seen_NH
            if last == picture.end:
                del sight.found[number]
        places = torch.stack(to_device(self._loaded.device, *sight.places(start, end)))
        return vectors_TH[None], places if len(places) == 1 else places[:, None]

    def _look(self, picture: Picture, spill: str) -> torch.Tensor:
        pixels = torch.from_numpy(_read(picture, spill)).to(self._loaded.device, self._loaded.dtype)
        if picture.grid:
            merge = int(self._model.config.vision_config.spatial_merge_size)
            sides = [1, *(side * merge for side in picture.grid)]
            grid = torch.tensor([sides], device=self._loaded.device)
            out = self._model.get_image_features(pixels, grid, return_dict=True)
        else:
            out = self._model.get_image_features(pixels[None], return_dict=True)
        (seen_NH,) = out.pooler_output
        num_tokens = picture.end - picture.begin
        if len(seen_NH) != num_tokens:
            raise InvalidRequest(
                f"an image is {len(seen_NH)} tokens to this model, not {num_tokens}: its "
                "configuration and its processor's disagree",
                param="messages",
            )
        return seen_NH  # type: ignore[no-any-return]


def _read(picture: Picture, spill: str) -> Any:
    count = int(np.prod(picture.shape))
    try:
        found = np.fromfile(spill, dtype="<f4", count=count, offset=4 * picture.start)
    except OSError as error:
        raise EngineFailed(f"what was prepared is gone: {error.strerror}") from error
    if found.size != count:
        raise EngineFailed("what was prepared is not whole")
    return found.reshape(picture.shape)
