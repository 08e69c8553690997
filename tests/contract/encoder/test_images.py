"""Images: classes and boxes as Transformers' pipelines find them; files that are none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.image_utils import load_image

from llmos.abi.events import ItemOutput
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.driver import EncoderDriver
from llmos.drivers.encoder.images import ImageReader, open_image
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.prepare import EncoderPreparer
from llmos.drivers.encoder.rows import Asked
from llmos.drivers.floats import read_floats
from tests.unit.drivers.encoder.folders import load, outputs, prepared, work_item
from tests.unit.drivers.encoder.media import blob, png, save_random, see_through, write_json
from tests.unit.drivers.tiny import drive

SIZES = [(40, 30), (30, 50), (64, 64)]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
EDGE = {"shortest_edge": 32}
SQUARE = {"height": 32, "width": 32}

FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ViT": (
        SMALL | {"intermediate_size": 48, "image_size": 32, "patch_size": 8},
        {"image_processor_type": "ViTImageProcessor", "size": SQUARE},
    ),
    "DeiT": (
        SMALL | {"intermediate_size": 48, "image_size": 32, "patch_size": 8},
        {
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": 40, "width": 40},
            "crop_size": SQUARE,
            "do_center_crop": True,
            "resample": 3,
        },
    ),
    "Dinov2": (
        SMALL | {"image_size": 32, "patch_size": 8},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 40},
            "crop_size": SQUARE,
            "do_center_crop": True,
            "resample": 3,
        },
    ),
    "ConvNext": (
        {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_stages": 4},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": EDGE,
            "crop_pct": 0.875,
            "resample": 3,
        },
    ),
    "ResNet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": EDGE,
            "crop_pct": 0.875,
            "resample": 3,
        },
    ),
    "Swin": (
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 3},
    ),
}


def _ask(
    folder: Path, tmp_path: Path, kind: str, images: list[bytes], **params: Any
) -> list[ItemOutput]:
    blobs = [blob(tmp_path, f"image{i}", data) for i, data in enumerate(images)]
    spill = tmp_path / "spill"
    made = prepared(
        folder,
        kind,
        [{"blob": i} for i in range(len(images))],
        params,
        blobs=blobs,
        spill=str(spill),
    )
    driver = load(folder)
    found = outputs(drive(driver, [work_item("req_1", kind, made)])["req_1"])
    spill.unlink(missing_ok=True)
    return found


def _theirs(images: list[bytes]) -> list[Any]:
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in images]


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_images(family: str, tmp_path: Path) -> None:
    """To 2e-3: a pixel may be rounded otherwise, and random weights make much of it."""
    config, settings = FAMILIES[family]
    cls = getattr(transformers, f"{family}ForImageClassification")
    model = cls(cls.config_class(**config, num_labels=6))
    folder = tmp_path / "m"
    save_random(folder, model, 0.2)
    write_json(folder / "preprocessor_config.json", settings)
    images = [png(*size, seed=i) for i, size in enumerate(SIZES)]
    pipe = transformers.pipeline("image-classification", str(folder), top_k=6)
    theirs = [pipe(image) for image in _theirs(images)]
    ours = _ask(folder, tmp_path, "image-classification", images, top_k=6)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.error is None, mine.error
        scores = {one["label"]: one["score"] for one in other}
        assert {one["label"] for one in mine.value} == set(scores)
        for one in mine.value:
            assert one["score"] == pytest.approx(scores[one["label"]], abs=2e-3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("kind", ["Bit", "Blip", "CLIP", "Llava", "Siglip"])
def test_what_is_transparent_is_seen_on_white(mode: str, kind: str, tmp_path: Path) -> None:
    """As those of Transformers' processors do that take such images; others take none."""
    settings = {"image_processor_type": f"{kind}ImageProcessor", "size": SQUARE}
    settings |= {"do_center_crop": False} if kind in ("Bit", "CLIP") else {}
    write_json(tmp_path / "preprocessor_config.json", settings)
    data = see_through(mode)
    mine = ImageReader(tmp_path).pixels(open_image(data, Asked([], None, [], 0, "")))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    wanted = theirs(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"][0]
    assert np.abs(mine - wanted).max() < 1e-5


def test_boxes_are_in_the_image_as_it_is_seen(yolos: Path, tmp_path: Path) -> None:
    """On its side in the file, by its note of how the camera was held."""
    upright = Image.open(io.BytesIO(png(48, 64, seed=1)))
    exif = upright.getexif()
    exif[0x0112] = 6
    out = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(out, "PNG", exif=exif)
    found = _ask(yolos, tmp_path, "object-detection", [out.getvalue(), png(48, 64, seed=1)])
    assert found[0].value == found[1].value != []
    assert load_image(str(blob(tmp_path, "x", out.getvalue()).path)).size == (48, 64)


@pytest.fixture
def yolos(tmp_path: Path) -> Path:
    config = transformers.YolosConfig(
        **SMALL,
        intermediate_size=48,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=5,
        num_labels=4,
    )
    folder = tmp_path / "m"
    save_random(folder, transformers.YolosForObjectDetection(config), 0.3)
    settings = {
        "image_processor_type": "YolosImageProcessor",
        "size": {"shortest_edge": 48, "longest_edge": 64},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def test_boxes_in_images(yolos: Path, tmp_path: Path) -> None:
    """Images of several shapes, no two of which share a batch."""
    images = [png(*size, seed=i) for i, size in enumerate([(64, 48), (48, 64), (64, 48)])]
    model = transformers.YolosForObjectDetection.from_pretrained(yolos).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(yolos)
    ours = _ask(yolos, tmp_path, "object-detection", images, threshold=0.1)
    import torch

    num_found = 0
    for mine, image in zip(ours, _theirs(images), strict=True):
        assert mine.error is None, mine.error
        inputs = processor(image, return_tensors="pt", do_pad=False)
        with torch.inference_mode():
            out = model(pixel_values=inputs["pixel_values"])
        (found,) = processor.post_process_object_detection(
            out, threshold=0.1, target_sizes=[(image.height, image.width)]
        )
        order = found["scores"].argsort(descending=True)
        assert [one["score"] for one in mine.value] == pytest.approx(
            found["scores"][order].tolist(), abs=2e-3
        )
        for one, box in zip(mine.value, found["boxes"][order].tolist(), strict=True):
            assert list(one["box"].values()) == pytest.approx([int(n) for n in box], abs=1)
        num_found += len(mine.value)
    assert num_found


def test_what_is_no_image_fails_alone(yolos: Path, tmp_path: Path) -> None:
    good = png(64, 48)
    images = [good, b"", b"not an image", good[: len(good) // 2], png(20, 20, mode="L"), good]
    found = _ask(yolos, tmp_path, "object-detection", images)
    assert [one.error is None for one in found] == [True, False, False, False, True, True]
    assert {one.error.code for one in found if one.error} == {"invalid_request"}


def test_a_file_that_is_another_is_refused(yolos: Path, tmp_path: Path) -> None:
    """Whoever names a file must know what is in it."""
    named = blob(tmp_path, "image", png(64, 48))
    Path(named.path or "").write_bytes(png(64, 48, seed=9))
    gone = msgspec.structs.replace(named, path=str(tmp_path / "nowhere"))
    large = msgspec.structs.replace(named, size_bytes=1 << 40)
    made = prepared(
        yolos,
        "object-detection",
        [{"blob": 0}, {"blob": 1}, {"blob": 2}, {"blob": 3}, {"blob": True}, "text"],
        blobs=[named, gone, large],
        spill=str(tmp_path / "spill"),
    )
    driver = EncoderDriver()
    assert made.spill == ""
    driver = load(yolos)
    found = outputs(drive(driver, [work_item("req_1", "object-detection", made)])["req_1"])
    codes = [one.error.code if one.error else "" for one in found]
    assert (
        codes
        == ["invalid_request", "invalid_request", "payload_too_large"] + ["invalid_request"] * 3
    )


def test_pixels_pass_beside_the_messages(yolos: Path, tmp_path: Path) -> None:
    image = blob(tmp_path, "image", png(64, 48))
    spill = tmp_path / "spill"
    made = prepared(yolos, "object-detection", [{"blob": 0}] * 2, blobs=[image], spill=str(spill))
    assert len(made.payload) < 500
    assert made.spill == str(spill)
    assert spill.stat().st_size == 2 * 4 * 3 * 48 * 64
    rows = [one.rows[0] for one in payload.decode(made.payload).items]
    one, other = (read_floats(made.spill, row.shape, row.start) for row in rows)
    assert np.array_equal(one, other)
    assert made.num_tokens == 2 * (48 * 64 // 256)
    driver = load(yolos)
    driver.submit(work_item("req_1", "object-detection", made))
    spill.unlink()
    found = outputs(drive(driver)["req_1"])
    assert [one.error.code for one in found if one.error] == ["engine_failed"] * 2
    assert EncoderPreparer(yolos) is not None


def _limit(monkeypatch: pytest.MonkeyPatch, **bounds: int) -> None:
    limits = msgspec.structs.replace(LIMITS, **bounds)
    for module in ("images", "rows", "spill", "texts", "prepare"):
        monkeypatch.setattr(f"llmos.drivers.encoder.{module}.LIMITS", limits)


def _errors(folder: Path, tmp_path: Path, files: list[bytes], spill: Path) -> list[str]:
    blobs = [blob(tmp_path, str(i), data) for i, data in enumerate(files)]
    items = [{"blob": i} for i in range(len(files))]
    made = prepared(folder, "object-detection", items, blobs=blobs, spill=str(spill))
    return [one.error.code if one.error else "" for one in payload.decode(made.payload).items]


def test_a_narrow_image_does_not_grow_without_bound(
    yolos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its short side made 48 high, one of 4000 x 1 would be 192,000 wide."""
    settings = {"image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 48}}
    write_json(yolos / "preprocessor_config.json", settings)
    _limit(monkeypatch, image_pixels=1_000_000)
    files = [png(4000, 1), png(64, 48)]
    assert _errors(yolos, tmp_path, files, tmp_path / "spill") == ["payload_too_large", ""]


def test_only_files_that_people_send_are_read(yolos: Path, tmp_path: Path) -> None:
    """PostScript is a program, and Pillow would have it run."""
    image, files = Image.new("RGB", (64, 48)), []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "EPS", "PPM"):
        out = io.BytesIO()
        image.save(out, kind)
        files.append(out.getvalue())
    expected = [""] * 6 + ["invalid_request"] * 2
    assert _errors(yolos, tmp_path, files, tmp_path / "spill") == expected


def test_many_images_are_bounded_together(
    yolos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [png(64, 48)] * 4
    size = 4 * 3 * 48 * 64
    _limit(monkeypatch, spill_bytes=2 * size + 1)
    full = ["", "", "payload_too_large", "payload_too_large"]
    assert _errors(yolos, tmp_path, files, tmp_path / "a") == full
    assert (tmp_path / "a").stat().st_size == 2 * size
    _limit(monkeypatch, request_pixels=3 * 64 * 48)
    assert _errors(yolos, tmp_path, files, tmp_path / "b") == ["", "", "", "payload_too_large"]
