"""A version's folder with an adapter, to a folder that any engine reads: one whole model.

The weights are written once more, tensor by tensor, with the adapter's in them, into the worker's
scratch folder, which goes when the worker does. So kernels, quantization, parking and Transformers
itself see a model like any other, pages of a file and all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from llmos.abi.registry import AdapterForm
from llmos.drivers.adapters.merging import Parts, merged_bias, merged_weight
from llmos.errors import DiskFull, LoadFailed, ModelRejected
from llmos.weights.adapters import FOLDER, WEIGHTS, Adapter, is_adapted, read_adapter
from llmos.weights.adapting import Edits, check_fits, edits_of, num_virtual
from llmos.weights.dtypes import BITS
from llmos.weights.folder import INDEX, SINGLE, list_files, read_weights
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.rewriting import Entry, encode_header
from llmos.weights.safetensors import Tensor, read_header

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_DTYPES = {code: getattr(torch, name) for name, code in _CODES.items()} | {"F64": torch.float64}


class Adapted:
    """What a folder holds beside a base, checked anew. `folder` is to be loaded; where the adapter
    is no part of the weights in it, `source` has it."""

    def __init__(self, folder: Path, source: Path, adapter: Adapter, edits: Edits) -> None:
        self.folder = folder
        self.source = source
        self.adapter = adapter
        self.edits = edits

    @property
    def form(self) -> AdapterForm:
        return self.adapter.form

    def parts(self, path: str) -> Parts:
        """Of a module, as float32."""
        return _read(self.source, self.edits.parts[path])

    def prompt(self) -> torch.Tensor:
        """A row for each virtual token, as float32."""
        assert self.edits.prompt is not None
        found = _read(self.source, {"prompt": self.edits.prompt})["prompt"]
        return found[: self.num_virtual]

    @property
    def num_virtual(self) -> int:
        """Tokens before every text."""
        return num_virtual(self.adapter)


def open_adapted(folder: Path, scratch: str, min_free_bytes: int = 0) -> Adapted | None:
    """None where there is no adapter. `min_free_bytes` stay free on the disk. Raises ModelRejected,
    LoadFailed, DiskFull."""
    if not is_adapted(folder):
        return None
    source = folder / FOLDER
    adapter = read_adapter(source)
    edits = edits_of(adapter)
    if adapter.form is not AdapterForm.MERGED and not _is_changed(adapter, edits):
        return Adapted(folder, source, adapter, edits)
    if not scratch:
        raise LoadFailed("an adapter is merged in a scratch folder, and there is none")
    target = Path(scratch) / f"adapted-{folder.name}"
    try:
        with _failing(folder.name):
            _copy_small(folder, target)
            writing = _Writing(folder, source, adapter, edits)
            writing.write(target / SINGLE, min_free_bytes)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return Adapted(target, source, adapter, edits)


@contextlib.contextmanager
def _failing(name: str) -> Iterator[None]:
    """What a file or a disk does not let happen, and what arithmetic does not, as LoadFailed."""
    try:
        yield
    except OSError as error:
        cls = DiskFull if error.errno in _FULL else LoadFailed
        raise cls(f"merging {name}: {error.strerror or error}") from error
    except (ArithmeticError, RuntimeError, SafetensorError) as error:
        text = str(error).strip().partition("\n")[0][:300]
        raise LoadFailed(f"merging {name}: {text or type(error).__name__}") from error


def _is_changed(adapter: Adapter, edits: Edits) -> bool:
    """Whether the base's own files do not do."""
    return bool(edits.whole or adapter.claim.lacks or adapter.claim.extra)


def _copy_small(folder: Path, target: Path) -> None:
    """All but weights and adapter."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    names = list_files(folder)
    files, _ = read_weights(folder, names)
    for name in names:
        if name not in (*files, INDEX) and not name.startswith(f"{FOLDER}/"):
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, target / name)


def _reserve(file: BinaryIO, size_bytes: int, min_free_bytes: int) -> None:
    """Take the room for a whole file before any of it is written, so that of two merges at once
    each sees the other's. Raises DiskFull, OSError."""

    def require(wanted_bytes: int) -> None:
        free = shutil.disk_usage(file.name).free
        if free - wanted_bytes < min_free_bytes:
            raise DiskFull(
                f"the disk is too full to merge an adapter: {size_bytes} bytes wanted, {free} "
                f"free, of which {min_free_bytes} must stay free"
            )

    require(size_bytes)
    os.posix_fallocate(file.fileno(), 0, size_bytes)
    require(0)


class _Writing:
    """One file of all tensors, by the names of the model's own modules."""

    def __init__(self, folder: Path, source: Path, adapter: Adapter, edits: Edits) -> None:
        files, _ = read_weights(folder, list_files(folder))
        self._folder = folder
        self._source = source
        self._adapter = adapter
        self._edits = edits
        self._merges = adapter.form is AdapterForm.MERGED
        config = Fields("config.json", read_object(folder / "config.json", MAX_CONFIG_BYTES))
        said = (config.find_word("dtype") or config.find_word("torch_dtype")).removeprefix("torch.")
        self._code = _CODES.get(said, "")
        self._homes = {
            adapter.claim.path_of(tensor.name): (file, tensor)
            for file in files
            for tensor in read_header(folder / file).tensors
        }
        base = {path: tensor for path, (_, tensor) in self._homes.items()}
        check_fits(adapter, edits, base)
        self.entries = self._lay_out(base | edits.whole)

    def _lay_out(self, tensors: dict[str, Tensor]) -> dict[str, Entry]:
        """From wide elements to narrow ones: so all lie aligned."""
        codes = {path: self._code_of(path, tensor) for path, tensor in tensors.items()}
        widths = {path: BITS[code] // 8 for path, code in codes.items()}
        entries, at = {}, 0
        for path in sorted(tensors, key=lambda path: -widths[path]):
            size = tensors[path].num_elements * widths[path]
            entries[path] = Entry(codes[path], tensors[path].shape, at, at + size)
            at += size
        return entries

    def _code_of(self, path: str, tensor: Tensor) -> str:
        """What is changed or new gets the type the model is said to be in."""
        is_new = path in self._edits.whole or self._module_of(path) is not None
        return self._code or tensor.dtype if is_new else tensor.dtype

    def _module_of(self, path: str) -> str | None:
        """The module whose weight or bias the adapter becomes part of."""
        module, _, last = path.rpartition(".")
        if not self._merges or module not in self._edits.parts:
            return None
        changes = last == "weight" or (last == "bias" and self._adapter.kind == "IA3")
        return module if changes else None

    def write(self, path: Path, min_free_bytes: int) -> None:
        header = encode_header(self.entries, {"format": "pt"})
        size_bytes = sum(entry.end - entry.begin for entry in self.entries.values())
        with path.open("wb") as file:
            _reserve(file, len(header) + size_bytes, min_free_bytes)
            file.write(header)
            for name, data in self._tensors():
                entry = self.entries[name]
                assert data.nbytes == entry.end - entry.begin, name
                file.write(data.contiguous().view(-1).view(torch.uint8).numpy().data)

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for path, entry in self.entries.items():
            module = self._module_of(path)
            tensor = self._get(path)
            if module is not None:
                tensor = self._merge(module, path, tensor.float())
            wanted = _DTYPES.get(entry.dtype)
            tensor = tensor if wanted is None else tensor.to(wanted)
            if module is not None or path in self._edits.whole:
                _check_finite(path, tensor)
            yield path, tensor

    def _get(self, path: str) -> torch.Tensor:
        if path in self._edits.whole:
            return _load(self._source / WEIGHTS, self._edits.whole[path].name)
        file, tensor = self._homes[path]
        return _load(self._folder / file, tensor.name)

    def _merge(self, module: str, path: str, tensor: torch.Tensor) -> torch.Tensor:
        parts = _read(self._source, self._edits.parts[module])
        with torch.inference_mode():
            if path.endswith(".bias"):
                return merged_bias(tensor, parts)
            return merged_weight(self._adapter.kind, self._adapter.config, tensor, parts)


def _read(source: Path, tensors: dict[str, Tensor]) -> dict[str, torch.Tensor]:
    found = {part: _load(source / WEIGHTS, one.name).float() for part, one in tensors.items()}
    for part, tensor in found.items():
        _check_finite(tensors[part].name, tensor)
    return found


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    """Of what an adapter brings, and of what comes of it. Raises ModelRejected."""
    if not bool(torch.isfinite(tensor).all()):
        raise ModelRejected(f"{FOLDER}/{WEIGHTS}: {name[:200]} is not finite")


def _load(path: Path, name: str) -> torch.Tensor:
    opened: Callable[..., object] = safe_open
    with opened(path, "pt") as file:  # type: ignore[attr-defined]
        found: torch.Tensor = file.get_tensor(name)
        return found
