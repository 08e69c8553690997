"""Settings of processors that nobody vouches for: refused at once, and null is the default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmos.drivers.encoder.images import ImageReader
from llmos.drivers.vision.prepare import make, read_blank
from llmos.drivers.vision.splits import SplitReader
from llmos.drivers.vision.tiles import TileReader
from llmos.errors import ModelRejected
from llmos.weights.seeing import find_tower
from tests.unit.drivers.encoder.media import write_json
from tests.unit.drivers.vision import test_prepare as prepares
from tests.unit.drivers.vision import test_splits as splits

Read = Callable[[Path, dict[str, Any]], Any]


def _images(folder: Path, settings: dict[str, Any]) -> ImageReader:
    folder.mkdir()
    write_json(folder / "preprocessor_config.json", prepares.CLIP | settings)
    return ImageReader(folder)


def _splits(folder: Path, settings: dict[str, Any]) -> SplitReader:
    return SplitReader(splits.make_folder(folder), splits.SETTINGS | settings)


def _tiles(folder: Path, settings: dict[str, Any]) -> TileReader:
    return TileReader(prepares.QWEN | settings)


READERS: list[Read] = [_images, _splits, _tiles]
HOSTILE: list[tuple[str, Any]] = [
    *(("resample", one) for one in ("x", 99, -1, 6, [1], True, 2.0)),
    *(("rescale_factor", one) for one in ("x", {}, 0, 1e308, 1e-60, 1e38, float("nan"), True)),
    *(("rescale_factor", one) for one in (10**400, float("inf"))),
    *(("image_mean", one) for one in ("abc", [1, 2], {}, [0, 0, "x"], [0, 0, None], 0.5)),
    *(("image_std", one) for one in ([0, 0, 0], [1, 1, 0], [0.5] * 5, [1, 1, 1e-60], [1e-40] * 3)),
    *(("do_rescale", one) for one in ("no", 0, 1)),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=str)
def test_what_is_no_setting(tmp_path: Path, read: Read, name: str, value: Any) -> None:
    with pytest.raises(ModelRejected, match=name):
        read(tmp_path / "m", {name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"size": "x"},
        {"size": [1]},
        {"size": {}},
        {"size": {"shortest_edge": 10**30}},
        {"size": {"shortest_edge": 0}},
        {"size": {"shortest_edge": 9, "longest_edge": "x"}},
        {"size": {"height": 9}},
        {"size": {"height": 9000, "width": 9000}},
        {"crop_size": {"shortest_edge": 9}},
        {"crop_size": True},
        {"do_resize": "no"},
        {"do_center_crop": 1},
        {"crop_pct": 0},
    ],
    ids=str,
)
def test_what_is_no_size(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelRejected, match=r"preprocessor_config\.json: "):
        _images(tmp_path / "m", settings)


@pytest.mark.parametrize("value", ["no", 0, 1, []], ids=str)
def test_splitting_is_a_flag(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ModelRejected, match="do_image_splitting"):
        _splits(tmp_path / "m", {"do_image_splitting": value})


@pytest.mark.parametrize("name", ["patch_size", "merge_size", "temporal_patch_size"])
def test_tiles_of_any_size_are_not_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelRejected, match=name):
        _tiles(tmp_path / "m", {name: 1 << 20})


NULLS = dict.fromkeys(
    (
        *("resample", "rescale_factor", "image_mean", "image_std", "do_resize", "do_rescale"),
        *("do_normalize", "do_image_splitting", "do_center_crop", "crop_size", "do_pad"),
        "min_pixels",
    )
)


@pytest.mark.parametrize("family", ["splits", "tiles", "fixed"])
def test_null_is_the_default(tmp_path: Path, family: str) -> None:
    made = []
    for name, more in (("said", {}), ("null", NULLS)):
        if family == "splits":
            folder = splits.make_folder(tmp_path / name, splits.SETTINGS | more)
            write_json(folder / "processor_config.json", {"image_seq_len": None} if more else {})
        else:
            tiles = {"image_processor_type": "Qwen2VLImageProcessor", "max_pixels": 7840}
            settings, kind = (tiles, "Qwen2VL") if family == "tiles" else (prepares.CLIP, "Llava")
            architecture = f"{kind}ForConditionalGeneration"
            folder = prepares.make_folder(tmp_path / name, architecture, settings | more)
        made.append(read_blank(folder))
    assert np.array_equal(made[0].values, made[1].values)
    assert made[0][1:] == made[1][1:]


@pytest.mark.parametrize("token", [-1, 10**12, 2**31, 2**40, True, "4", [], 1.0, 300_000], ids=str)
def test_a_token_of_no_vocabulary(tmp_path: Path, token: Any) -> None:
    folder = splits.make_folder(tmp_path / "m")
    change(folder / "config.json", image_token_id=token)
    with pytest.raises(ModelRejected, match="image_token_id"):
        make(str(folder))


def test_an_older_name_of_the_token(tmp_path: Path) -> None:
    folder = splits.make_folder(tmp_path / "m")
    token = json.loads((folder / "config.json").read_text())["image_token_id"]
    change(folder / "config.json", image_token_id=None, image_token_index=token)
    assert make(str(folder))._token == token


@pytest.mark.parametrize(
    ("architecture", "more", "vision"),
    [
        ("SmolVLM", {"scale_factor": 64}, {}),
        ("SmolVLM", {}, {"patch_size": 64}),
        ("Llava", {}, {"patch_size": 64, "model_type": "clip_vision_model"}),
    ],
)
def test_a_tower_without_tokens(
    tmp_path: Path, architecture: str, more: dict[str, Any], vision: dict[str, Any]
) -> None:
    folder = splits.make_folder(tmp_path / "m", **vision)
    change(
        folder / "config.json", architectures=[f"{architecture}ForConditionalGeneration"], **more
    )
    with pytest.raises(ModelRejected, match=r"no token|over image_size"):
        find_tower(folder)


@pytest.mark.parametrize("fields", [{"vision_config": [1]}, {"architectures": {"a": 1}}], ids=str)
def test_a_configuration_of_another_shape(tmp_path: Path, fields: dict[str, Any]) -> None:
    folder = prepares.make_folder(
        tmp_path / "m", "LlavaForConditionalGeneration", {"image_processor_type": "x"}
    )
    write_json(folder / "preprocessor_config.json", prepares.CLIP)
    change(folder / "config.json", **fields)
    with pytest.raises(ModelRejected, match=r"config\.json"):
        make(str(folder))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
