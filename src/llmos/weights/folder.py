"""A model folder as a set of plain files: what may be in it, and which files are the weights."""

from __future__ import annotations

import re
from pathlib import Path

from llmos.errors import ModelRejected
from llmos.weights.jsonfile import read_object
from llmos.weights.limits import MAX_FILES, MAX_INDEX_BYTES
from llmos.weights.safetensors import Tensor, read_tensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""Endings of files whose loading runs code. Refused by name, never opened."""

OPENVINO = ("openvino_model", "openvino_tokenizer", "openvino_detokenizer")
"""Of an OpenVINO model: beside each `.xml` lie its constants, in a `.bin` that is no pickle."""

_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,200}\.safetensors")


def list_files(folder: Path, ignore: re.Pattern[str] | None = None) -> list[str]:
    """Names of the folder's files, checked: no pickles, no way out of the folder, plain files.

    Files whose names match `ignore` are left out without a look. Raises ModelRejected.
    """
    if not folder.is_dir():
        raise ModelRejected(f"{folder.name}: not a folder")
    root = folder.resolve()
    names = []
    for num_seen, path in enumerate(sorted(folder.rglob("*"))):
        name = path.relative_to(folder).as_posix()
        if num_seen >= MAX_FILES:
            raise ModelRejected(f"{folder.name}: more than {MAX_FILES} files")
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise ModelRejected(f"{name}: a symbolic link out of the model's folder")
        if path.is_dir():
            continue
        if not path.is_file():
            raise ModelRejected(f"{name}: not a regular file")
        if ignore is not None and ignore.fullmatch(name):
            continue
        if path.suffix.lower() in PICKLES and not _is_openvino(path):
            raise ModelRejected(
                f"{name}: a pickle can run code when it is loaded; only safetensors and GGUF are "
                "accepted"
            )
        names.append(name)
    return names


def _is_openvino(path: Path) -> bool:
    return path.suffix == ".bin" and path.stem in OPENVINO and path.with_suffix(".xml").is_file()


def has_safetensors(names: list[str]) -> bool:
    """Whether the weights are safetensors: whatever else there is then, they are preferred."""
    return SINGLE in names or INDEX in names


def is_weights(name: str) -> bool:
    """Whether a file of safetensors may be called so: a plain name."""
    return _SHARD.fullmatch(name) is not None


def require(names: list[str], wanted: str) -> None:
    """Raises ModelRejected when a file every model needs is missing."""
    if wanted not in names:
        raise ModelRejected(f"{wanted}: missing")


def read_weights(folder: Path, names: list[str]) -> tuple[list[str], list[Tensor]]:
    """The weight files and all their tensors. Raises ModelRejected.

    As Transformers does, `model.safetensors` is preferred to a sharded index.
    """
    if SINGLE in names:
        return [SINGLE], read_tensors(folder / SINGLE)
    if INDEX in names:
        return _read_shards(folder, names)
    other = [name for name in names if name.endswith((".safetensors", ".onnx"))]
    hint = f" (found {other[0]})" if other else ""
    raise ModelRejected(f"{SINGLE}: missing, and so is {INDEX}{hint}")


def read_weight_map(index: Path) -> dict[str, str]:
    """Of a sharded index: tensor name to file name, which is a plain one. Raises ModelRejected."""
    weight_map = read_object(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelRejected(f"{INDEX}: weight_map must be an object that is not empty")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not is_weights(shard):
            raise ModelRejected(f"{INDEX}: {tensor[:80]!r} names a bad file {str(shard)[:80]!r}")
    return weight_map


def _read_shards(folder: Path, names: list[str]) -> tuple[list[str], list[Tensor]]:
    weight_map = read_weight_map(folder / INDEX)
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if shard not in names:
            raise ModelRejected(f"{shard}: missing, but {INDEX} names it")
    tensors: list[Tensor] = []
    homes: dict[str, str] = {}
    for shard in shards:
        for found in read_tensors(folder / shard):
            if found.name in homes:
                raise ModelRejected(f"{shard}: {found.name[:80]!r} is in another shard too")
            homes[found.name] = shard
            tensors.append(found)
    if homes != weight_map:
        wrong = next(
            k for k in homes.keys() | weight_map.keys() if homes.get(k) != weight_map.get(k)
        )
        raise ModelRejected(f"{INDEX}: {wrong[:80]!r} is not in the shard it is said to be in")
    return shards, tensors
