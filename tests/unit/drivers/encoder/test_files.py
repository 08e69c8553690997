"""Files of images as people see them: on white, the right way up."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llmos.drivers.encoder import images
from llmos.drivers.encoder.images import open_image
from llmos.drivers.encoder.rows import Asked

ORIENTATION = 0x0112
LIT = (0, 1, 3, 2)
"""Corners, row by row, where the first one of a file is seen."""


def opened(image: Any, kind: str = "PNG", **how: Any) -> Any:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return open_image(out.getvalue(), Asked([], None, [], 0, ""))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_is_white(mode: str) -> None:
    if mode in ("RGBA", "LA"):
        found = opened(Image.new("RGBA", (9, 5), (10, 200, 30, 0)).convert(mode))
    else:
        found = opened(Image.new(mode, (9, 5)), transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert found.mode == "RGB"
    assert (np.asarray(found) == 255).all()


def test_half_of_a_colour_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    whole = opened(Image.fromarray(pixels))
    monkeypatch.setattr(images, "STRIP_PIXELS", 100)
    assert np.array_equal(np.asarray(opened(Image.fromarray(pixels))), np.asarray(whole))
    alpha = pixels[..., 3:] / 255
    wanted = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(whole) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_way_up_is_that_of_the_camera(kind: str, orientation: int) -> None:
    image = Image.new("RGB", (32, 16))
    image.paste((255, 255, 255), (0, 0, 16, 8))
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    found = opened(image, kind, exif=exif)
    assert found.size == ((32, 16) if orientation < 5 else (16, 32))
    corners = [found.getpixel((x, y))[0] for y in (0, -1) for x in (0, -1)]
    at = LIT[(orientation - 1) % 4]
    assert [value > 128 for value in corners] == [i == at for i in range(4)]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("note", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_a_note_that_cannot_be_read_says_nothing(note: bytes) -> None:
    assert opened(Image.new("RGB", (9, 5)), "JPEG", exif=note).size == (9, 5)
