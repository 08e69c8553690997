"""One label for every picture of a folder of folders."""
# ruff: noqa: N806 - tensor names end in shapes: Colours, Height, Width

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest, PluginError
from llmos.programs.train.examples import Batch, Examples
from llmos.programs.train.models import load_or_make
from llmos.programs.train.objectives.labelled import Labelled
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import Rows
from llmos.programs.train.work import Setting, Work

FILE = "preprocessor_config.json"
HALF = [0.5, 0.5, 0.5]


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for what is no picture, PluginError without Pillow."""
    recipe = setting.recipe
    labelled = Labelled(setting)
    wanted = _settings(setting)
    model = load_or_make(setting, "AutoModelForImageClassification", None, **labelled.fields())
    examples = {}
    for split, rows in setting.rows.items():
        pixels = _pixels(rows, wanted, split)
        numbers = labelled.numbers[split]
        made = [{"pixels": p, "label": y} for p, y in zip(pixels, numbers, strict=True)]
        patches = (wanted["size"]["height"] // max(1, recipe.model.patch_size)) ** 2
        examples[split] = Examples(made, [patches] * len(made), _collate, recipe.training.seed)

    def finish(folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(wanted, indent=2), "utf-8")

    return Work(
        model,
        None,
        examples,
        labelled.score,
        metric="accuracy",
        finish=finish,
        facts={"labels": labelled.labels, "pictures": len(setting.rows[TRAIN])},
    )


def _settings(setting: Setting) -> dict[str, Any]:
    """How pictures become pixels: as the base says, or as it is made here."""
    if setting.base is not None:
        path = setting.base / FILE
        if not path.is_file():
            raise InvalidRequest(f"the base has no {FILE}", param="recipe.base")
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
        size = said.get("size") or {}
        if not isinstance(size, dict) or "height" not in size or said.get("do_center_crop"):
            raise InvalidRequest(
                f"{FILE}: only pictures of one height and width are learned from",
                param="recipe.base",
            )
        return said
    side = setting.recipe.model.image_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": HALF,
        "image_std": HALF,
    }


def _pixels(rows: Rows, wanted: Mapping[str, Any], split: str) -> list[np.ndarray]:
    try:
        from PIL import Image
    except ImportError:
        raise PluginError("pictures need an extra: pip install 'llmos[images]'") from None

    size = (wanted["size"]["width"], wanted["size"]["height"])
    mean_C = np.asarray(wanted.get("image_mean", HALF), np.float32)
    std_C = np.asarray(wanted.get("image_std", HALF), np.float32)
    made = []
    for number, row in enumerate(rows):
        try:
            with Image.open(io.BytesIO(row.get("data", b""))) as image:
                small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            named = row.get("file", number + 1)
            raise InvalidRequest(
                f"{split}: {named} is no picture: {error}", param=f"files.{split}"
            ) from None
        pixels_HWC = np.asarray(small, np.float32) * wanted.get("rescale_factor", 1 / 255)
        made.append(((pixels_HWC - mean_C) / std_C).transpose(2, 0, 1).astype(np.float32))
    return made


def _collate(rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
    return {
        "pixel_values": torch.from_numpy(np.stack([row["pixels"] for row in rows])),
        "labels": torch.tensor([row["label"] for row in rows]),
    }
