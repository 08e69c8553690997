"""Which files of a repository or folder belong to a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from llmos.abi.modelfiles import is_of_subfolder
from llmos.errors import InvalidRequest, ModelRejected
from llmos.storage.names import check_filename
from llmos.weights.adapters import CONFIG, FOLDER, has_adapter
from llmos.weights.folder import INDEX, PICKLES, SINGLE, has_safetensors, list_files
from llmos.weights.gguf_inspection import SUFFIX, select_file
from llmos.weights.onnx_inspection import select_onnx
from llmos.weights.openvino_inspection import select_openvino

_TEXT = (".json", ".txt", ".model", ".jinja")
_LEGAL = re.compile(
    r"(README\.md|(LICEN[CS]E|NOTICE|COPYING|USE_POLICY)[A-Za-z0-9._\-]*)", re.IGNORECASE
)
_TRAINING_LEFTOVERS = re.compile(
    r"(training_args\.bin|optimizer\.(bin|pt)|scheduler\.(bin|pt)|scaler\.pt|rng_state.*\.pth)"
)


def select_small(names: Iterable[str]) -> list[str]:
    """Everything of a model but its weights: configuration, tokenizer, templates, card, licence.
    `adapter/` is of a model where it says that it is."""
    found = list(names)
    adapted = has_adapter(found)
    return [n for n in found if _is_small(n) and (adapted or not n.startswith(f"{FOLDER}/"))]


def _is_small(name: str) -> bool:
    if "/" in name:
        return is_of_subfolder(name)
    return name.endswith(_TEXT) or _LEGAL.fullmatch(name) is not None


def select_weights(names: Iterable[str], shards: Iterable[str]) -> list[str]:
    """The weight files: `model.safetensors`, else the `shards` its index names, else those of an
    OpenVINO model, else the one GGUF or ONNX file.

    Raises ModelRejected when there are none, naming a pickle if that is what there is instead.
    """
    found = set(names)
    if SINGLE in found:
        return [SINGLE]
    if INDEX in found:
        return sorted(set(shards))
    if others := _select_others(sorted(name for name in found if "/" not in name)):
        return others
    refuse_pickles(found)
    raise ModelRejected(f"{SINGLE}: missing, and so is {INDEX}")


def refuse_pickles(names: Iterable[str]) -> None:
    """Raises ModelRejected naming one, where there are any."""
    pickles = sorted(name for name in names if name.lower().endswith(PICKLES))
    if pickles:
        raise ModelRejected(
            f"{pickles[0]}: a pickle can run code when it is loaded; only safetensors and GGUF are "
            "accepted"
        )


def _select_others(names: list[str]) -> list[str]:
    """The weight files where there are no safetensors. Raises ModelRejected."""
    if select_file(names) is None and (found := select_openvino(names)):
        return found
    one = _select_one(names)
    return [] if one is None else [one]


def _select_one(names: list[str]) -> str | None:
    """The one file that is all of a model's weights, where there is one. Raises ModelRejected."""
    return select_file(names) or select_onnx(names)


def require_basics(names: Iterable[str]) -> None:
    """Refuse early, before anything large is moved. A GGUF file holds all of it."""
    found = set(names)
    if not has_safetensors(list(found)) and any(n.lower().endswith(SUFFIX) for n in found):
        return
    if "config.json" not in found:
        if CONFIG in found:
            refuse_pickles(found)  # of PEFT
        raise ModelRejected("config.json: missing")
    spells = found >= {"vocab.json", "tokenizer_config.json"} and "merges.txt" not in found
    # of text; of images and sound; of letters
    if not found & {"tokenizer.json", "preprocessor_config.json"} and not spells:
        raise ModelRejected("tokenizer.json: missing")


def checked_name(name: str) -> str:
    """A file's name, fit to be joined to a folder. Raises ModelRejected."""
    try:
        return check_filename(name, folders=1)
    except InvalidRequest as error:
        raise ModelRejected(error.message) from None


def scan(folder: Path) -> list[str]:
    """The model's files in a local folder: safetensors, else those of an OpenVINO model, else its
    one GGUF or ONNX file. Pickles are refused, but for what training leaves.

    Raises ModelRejected.
    """
    seen = list_files(folder, ignore=_TRAINING_LEFTOVERS)
    names = [checked_name(name) for name in select_small(seen)]
    here = [name for name in seen if "/" not in name]
    if not has_safetensors(here) and (others := _select_others(here)):
        return [*names, *map(checked_name, others)]
    return names + [name for name in here if name.endswith(".safetensors")]


def scan_file(path: Path) -> list[str]:
    """A model that is one file: GGUF or ONNX. Its name. Raises ModelRejected."""
    if path.is_symlink() or not path.is_file() or _select_one([path.name]) is None:
        raise ModelRejected(f"{path.name}: a model is a folder, or one GGUF or ONNX file")
    return [checked_name(path.name)]
