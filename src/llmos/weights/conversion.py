"""From a model's folder to the same model quantized, in the stored form. Streaming, by rows."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmos.errors import Conflict, DiskFull, InvalidRequest, StorageError
from llmos.weights.folder import INDEX, SINGLE, list_files, read_weight_map, read_weights
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.quantizable import find_targets, saved_bytes
from llmos.weights.rewriting import Progress, rewrite
from llmos.weights.stored import section

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def quantize_folder(
    source: Path, target: Path, bits: int, progress: Progress = lambda _: None
) -> None:
    """Make `target`, whole or not at all: killed on the way, only `.TARGET.part` is left.

    Raises ModelRejected (what the source is), Conflict (it is quantized, `target` is there),
    InvalidRequest (bits), DiskFull, StorageError. Blocking.
    """
    if bits not in (8, 4):
        raise InvalidRequest(f"{bits} bits: weights are quantized to 8 or 4", param="bits")
    if target.exists():
        raise Conflict(f"{target.name} is there already")
    names = list_files(source)
    config = read_source(source)
    files, tensors = read_weights(source, names)
    model_type = Fields("config.json", config).find_word("model_type")
    targets = {t.source.name: t for t in find_targets(tensors, bits, model_type)}
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _written(target.name):
            part.mkdir(mode=0o700)
            _copy_others(source, part, names)
            config["quantization_config"] = section(bits)
            _write_json(part / "config.json", config)
            homes = {}
            for file in files:
                for name in rewrite(source / file, part / file, targets, progress):
                    homes[name] = file
            if files != [SINGLE]:
                _write_index(source / INDEX, part, homes)
            _sync(part)
            part.rename(target)
            _sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_source(folder: Path) -> dict[str, Any]:
    """The config of a model that can be quantized. Raises ModelRejected, Conflict."""
    config = read_object(folder / "config.json", MAX_CONFIG_BYTES)
    found = Fields("config.json", config).find_section("quantization_config")
    if found is not None:
        method = found.find_word("quant_method") or "unknown"
        raise Conflict(f"the model is quantized already ({method})")
    return config


def needed_bytes(folder: Path, bits: int) -> int:
    """Of the disk, for what `quantize_folder` makes. Raises ModelRejected, Conflict."""
    names = list_files(folder)
    config = read_source(folder)
    _, tensors = read_weights(folder, names)
    model_type = Fields("config.json", config).find_word("model_type")
    weights = sum(tensor.end - tensor.begin for tensor in tensors)
    others = sum((folder / name).stat().st_size for name in names if not _is_weights(name))
    return weights - saved_bytes(find_targets(tensors, bits, model_type)) + others + (1 << 20)


@contextlib.contextmanager
def _written(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cls = DiskFull if error.errno in _FULL else StorageError
        raise cls(f"writing {what}: {error.strerror or error}") from error


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") or name == INDEX


def _copy_others(source: Path, part: Path, names: list[str]) -> None:
    for name in names:
        if not _is_weights(name) and name != "config.json":
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, part / name)


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _write_index(index: Path, part: Path, homes: dict[str, str]) -> None:
    read_weight_map(index)
    size = sum((part / file).stat().st_size for file in set(homes.values()))
    _write_json(part / INDEX, {"metadata": {"total_size": size}, "weight_map": homes})


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
