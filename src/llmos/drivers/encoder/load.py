"""A model folder to a model in memory, by Transformers' own class for its architecture."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

# set before Transformers is imported: nothing here may reach for a network, and threads that wait
# give their core away: one that spins takes it from the one it waits for
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.update(OMP_WAIT_POLICY="PASSIVE")

import msgspec
import torch
import transformers

from llmos.abi.driver import ReplicaSpec
from llmos.abi.registry import AdapterForm
from llmos.drivers.adapters.folder import Adapted, open_adapted
from llmos.drivers.adapters.layers import add_bottlenecks, add_prefix, add_vectors
from llmos.drivers.encoder.kinds import Head, Purpose, find_purpose
from llmos.drivers.encoder.packed import pack
from llmos.drivers.encoder.pooling import Pooling, read_pooling
from llmos.drivers.native.failures import mapped
from llmos.errors import EngineFailed, LoadFailed, ModelRejected
from llmos.weights.labels import find_labels
from llmos.weights.processor import loaded_dtype

_log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_UNUSED = {Head.POOL: ("pooler.", "lm_head.", "cls.")}
"""Beginnings of tensors that a folder need not have, where what is on top of a head is not used."""


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run. `labels` are the names of its classes, by number; `virtual` ids of
    tokens that come before every row. Of a prefix, `num_prefix` tokens come before these only as
    keys and values."""

    model: Any
    config: Any
    purpose: Purpose
    dtype: torch.dtype
    device: torch.device
    labels: list[str]
    pooling: Pooling
    folder: Path
    weights_bytes: int
    virtual: tuple[int, ...] = ()
    num_prefix: int = 0


def load_model(spec: ReplicaSpec) -> Loaded:
    """Raises ModelRejected (what the folder is) or LoadFailed (what went wrong with it)."""
    adapted = open_adapted(Path(spec.folder), spec.scratch, spec.min_free_bytes)
    if adapted is not None:
        spec = msgspec.structs.replace(spec, folder=str(adapted.folder))
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = Path(spec.folder)
    raw = _read_config(folder)
    architecture = (raw.get("architectures") or [""])[0]
    pools = (folder / "modules.json").is_file()
    purpose = find_purpose(str(architecture), find_labels(raw), pools=pools)
    if purpose is None:
        raise ModelRejected(f"config.json: the encoder driver does not read {architecture}")
    device = _device(spec.device)
    cls = _class_of(str(architecture), purpose)
    model, config = _read(cls, folder, raw, _dtype(spec, raw, device), purpose)
    with _failing("the device"):
        model = model.to(device).eval().requires_grad_(False)
        first = _add(model, adapted)
        weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        dtype = next(model.parameters()).dtype
        pack(model, purpose.head)
    return Loaded(
        model=model,
        config=config,
        purpose=purpose,
        dtype=dtype,
        device=device,
        labels=find_labels(raw) or [str(i) for i in range(int(getattr(config, "num_labels", 0)))],
        pooling=read_pooling(folder),
        folder=folder,
        weights_bytes=weights_bytes,
        virtual=tuple(range(first, first + adapted.num_virtual)) if adapted and first else (),
        num_prefix=adapted.num_virtual if adapted and not first else 0,
    )


def _add(model: Any, adapted: Adapted | None) -> int:
    """What is no part of the weights; the first id of its virtual tokens, or 0."""
    if adapted is None:
        return 0
    if adapted.form is AdapterForm.BOTTLENECK:
        add_bottlenecks(model, adapted)
    elif adapted.form is AdapterForm.PREFIX:
        add_prefix(model, adapted)
    elif adapted.form is AdapterForm.TOKENS:
        return add_vectors(model, adapted)
    return 0


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRejected(f"config.json: {error}") from error
    if not isinstance(raw, dict):
        raise ModelRejected("config.json: expected an object")
    return raw


def _class_of(architecture: str, purpose: Purpose) -> Any:
    """Where only hidden states are wanted, the model below the head."""
    cls = getattr(transformers, architecture, None)
    if cls is None:
        raise ModelRejected(f"config.json: this Transformers has no {architecture}")
    is_base = architecture.endswith("Model")
    return transformers.AutoModel if purpose.head is Head.POOL and not is_base else cls


def _device(device: str) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise LoadFailed(f"device {device!r}: {error}") from error
    return chosen


def _dtype(spec: ReplicaSpec, raw: dict[str, Any], device: torch.device) -> torch.dtype:
    if spec.dtype != "auto":
        if spec.dtype not in _DTYPES:
            raise LoadFailed(f"dtype {spec.dtype!r}: not one of auto, {', '.join(_DTYPES)}")
        return _DTYPES[spec.dtype]
    said = str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch.")
    dtype = said if said in _DTYPES else "float32"
    return _DTYPES[loaded_dtype(dtype) if device.type == "cpu" else dtype]


def _read(
    cls: Any, folder: Path, raw: dict[str, Any], dtype: torch.dtype, purpose: Purpose
) -> tuple[Any, Any]:
    with _failing(folder.name):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if raw.get("quantization_config"):
            raise ModelRejected("config.json: quantized weights are not read by this driver")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, info = cls.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they come back by name, and are refused
                local_files_only=True,
                output_loading_info=True,
            )
    _check_tensors(info, _UNUSED.get(purpose.head, ()))
    return model, config


def _check_tensors(info: dict[str, Any], unused: tuple[str, ...]) -> None:
    for what, kind in (
        ("missing_keys", "missing from the files"),
        ("mismatched_keys", "of the wrong shape"),
        ("error_msgs", "unreadable"),
    ):
        names = sorted(str(name) for name in info.get(what) or ())
        if what == "missing_keys":
            names = [name for name in names if not any(u in name for u in unused)]
        if names:
            raise ModelRejected(f"{len(names)} tensors are {kind}: {', '.join(names[:4])}")


class _failing:  # noqa: N801 - a context manager
    """What an engine raises while loading, as LoadFailed with a name to it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._mapped = mapped()

    def __enter__(self) -> None:
        self._mapped.__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        try:
            return self._mapped.__exit__(*raised)
        except EngineFailed as error:
            raise LoadFailed(f"{self._what}: {error.message}") from error
