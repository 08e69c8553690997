"""Images in prompts: vectors of what is seen, where a prompt has tokens that only stand for it.

An image goes through the model's own vision tower by itself, before the first of its tokens is
read, so what is seen follows nobody else's; it is kept until the last of them has been read. It
does so block by block, in turns with the steps of others, and one image at a time.

Legend: S what is seen (for the tokens, and for early layers), T tokens, N tokens of an image,
H hidden units.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llmos.abi.inference import WorkItem
from llmos.drivers.floats import read_floats
from llmos.drivers.native import turns
from llmos.drivers.native.batch import Seen
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.load import LoadedModel
from llmos.drivers.native.towers import Vision, deep_of
from llmos.drivers.native.transfer import to_device
from llmos.drivers.native.turns import Turns
from llmos.drivers.pictures import Picture, decode_pictures, places_of
from llmos.errors import EngineFailed, ModelRejected, UserError
from llmos.weights.seeing import SEEING

PREPARER = "llmos.drivers.vision.prepare"
"""By name, as all entries are: it is imported where a model sees only."""


class Sight:
    """Of one request. `lag`: how much less than its number the place of a token after the images
    is. `found` are vectors of images that are being read, by their number, `looks` those that are
    on their way through the tower."""

    def __init__(self, pictures: list[Picture], spill: str, num_prompt: int) -> None:
        self.pictures = pictures
        self.spill = spill
        self.lag = 0
        self.found: dict[int, torch.Tensor] = {}
        self.looks: dict[int, Turns[torch.Tensor]] = {}
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

    def __init__(self, loaded: LoadedModel, folder: Path) -> None:
        """Raises ModelRejected where the folder's processor is not of its model, PluginError."""
        self._loaded = loaded
        self._model: Any = loaded.model
        config: Any = loaded.model.config
        self._last: weakref.ref[Turns[torch.Tensor]] | None = None
        if config.architectures[0] in SEEING:
            self._vision = Vision(loaded.model)
            self._check(folder)
            for block in self._vision.blocks():
                block.register_forward_pre_hook(_pause)

    def _check(self, folder: Path) -> None:
        """That a small image is as many tokens to the model as to who prepares prompts."""
        try:
            with mapped():
                seen_SNH = self._look(*importlib.import_module(PREPARER).read_blank(folder))
                is_finite = bool(seen_SNH.isfinite().all())
        except (EngineFailed, UserError) as error:
            raise ModelRejected(f"its processor is not of this model: {error}") from error
        if not is_finite:
            raise ModelRejected("what its vision tower makes of a small image is not finite")

    def look(self, sight: Sight, start: int, end: int, until_s: float) -> bool:
        """At the images of a chunk of the prompt, until that time. True: all have been seen."""
        for number, picture in enumerate(sight.pictures):
            if max(start, picture.begin) >= min(end, picture.end) or number in sight.found:
                continue
            if number not in sight.looks:
                before = self._last() if self._last else None
                if before is not None and not before.go_on(until_s):
                    return False  # another's is at work, and memory is there for one
                sight.looks[number] = self._start(picture, sight.spill)
            if not sight.looks[number].go_on(until_s):
                return False
            sight.found[number] = sight.looks.pop(number).result()
        return True

    def _start(self, picture: Picture, spill: str) -> Turns[torch.Tensor]:
        def work() -> torch.Tensor:
            pixels = read_floats(spill, picture.shape, picture.start)
            return self._look(pixels, picture.end - picture.begin, picture.grid)

        begun = Turns(work)
        self._last = weakref.ref(begun)
        return begun

    @torch.inference_mode()
    def read(self, sight: Sight, start: int, tokens: list[int]) -> Seen:
        """A chunk of the prompt, whose images have been looked at: its vectors and their places."""
        end = start + len(tokens)
        (ids_T,) = to_device(self._loaded.device, tokens)
        vectors_TH = self._model.get_input_embeddings()(ids_T)
        where, seen = [], []
        for number, picture in enumerate(sight.pictures):
            first, last = max(start, picture.begin), min(end, picture.end)
            if first >= last:
                continue
            seen_SNH = sight.found[number][:, first - picture.begin : last - picture.begin]
            vectors_TH[first - start : last - start] = seen_SNH[0]
            where.append((first - start, last - start))
            seen.append(seen_SNH)
            if last == picture.end:
                del sight.found[number]
        places = torch.stack(to_device(self._loaded.device, *sight.places(start, end)))
        places = places if len(places) == 1 else places[:, None]
        return Seen(vectors_TH[None], places, deep_of(where, seen, len(tokens)))

    @torch.inference_mode()
    def _look(self, values: Any, num_tokens: int, grid_of_tokens: list[int]) -> torch.Tensor:
        pixels = torch.from_numpy(values).to(self._loaded.device, self._loaded.dtype)
        seen_SNH = self._vision.see(pixels, grid_of_tokens)
        if seen_SNH.shape[1] != num_tokens:
            raise EngineFailed(
                f"an image is {seen_SNH.shape[1]} tokens to this model, not {num_tokens}: its "
                "configuration and its processor's disagree"
            )
        return seen_SNH


def _pause(*_: object) -> None:
    turns.pause()
