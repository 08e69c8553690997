"""A model folder to a model in memory, through Transformers' own classes, from safetensors only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# set before Transformers is imported: nothing here may reach for a network
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import torch
import transformers
from safetensors import SafetensorError, safe_open

from llmos.drivers.native import attention, pages
from llmos.drivers.native.architectures import NATIVE_MIXTURES, find_refusal
from llmos.drivers.native.attention import ProbePlan
from llmos.drivers.native.kv import LayerShape
from llmos.drivers.native.weights import Weights, identities
from llmos.errors import LLMOSError, LoadFailed, ModelRejected
from llmos.weights.footprint import Shape, widest
from llmos.weights.processor import computes
from llmos.weights.seeing import SEEING
from llmos.weights.stored import METHOD

_log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ROPES_OF_LENGTH = ("dynamic", "longrope")
"""RoPE kinds whose angles change with the longest sequence of the batch."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run. `windows` is each layer's sliding window in tokens, None for none.

    `mixes_rows`: a layer works on the rows of a batch together (experts do, on those that chose
    them), so that even at one width a row's bits follow its neighbours.
    """

    model: torch.nn.Module
    dtype: torch.dtype
    device: torch.device
    vocab_size: int
    context_length: int
    eos_ids: frozenset[int]
    windows: list[int | None]
    shapes: list[LayerShape]
    weights: Weights
    mixes_rows: bool

    def shape(self) -> Shape:
        """What the scratch of a forward depends on."""
        config: Any = text_of(self.model.config)
        sizes = [parameter.shape for parameter in self.model.parameters()]
        heads = int(config.num_attention_heads)
        return Shape(
            vocab_size=self.vocab_size,
            hidden_size=int(config.hidden_size),
            widest=widest(sizes, self.vocab_size),
            largest=max(size.numel() for size in sizes),
            num_heads=heads,
            head_dim=max(max(s.key_size, s.value_size) for s in self.shapes),
            item_bytes=self.dtype.itemsize,
            capped=getattr(config, "attn_logit_softcapping", None) is not None,
        )


def load_model(
    folder: Path,
    *,
    dtype: str,
    device: str,
    context_length: int,
    adapt: Callable[[torch.nn.Module], None] = lambda model: None,
) -> LoadedModel:
    """`adapt` adds what is no part of the folder's weights.

    Raises ModelRejected (what the folder is) or LoadFailed (what went wrong with it).
    """
    files = identities(folder)
    config = read_config(folder)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelRejected("config.json: torch does not read quantized weights of this form")
    chosen_device = _choose_device(device)
    chosen_dtype = choose_dtype(dtype, config, folder, chosen_device)

    def read() -> torch.nn.Module:
        with pages.apart():
            model = _read_model(folder, config, chosen_dtype, chosen_device)
            adapt(model)
            return model

    model = read()
    context_length = bound_context(text_of(config), context_length)
    windows = _layer_windows(text_of(config))
    vocab_size, shapes = _probe(model, config, windows, chosen_device)
    return LoadedModel(
        model=model,
        dtype=chosen_dtype,
        device=chosen_device,
        vocab_size=vocab_size,
        context_length=context_length,
        eos_ids=find_eos(folder, text_of(config)),
        windows=windows,
        shapes=shapes,
        weights=Weights(model, folder, files, read),
        mixes_rows=config.architectures[0] in NATIVE_MIXTURES,
    )


def read_config(folder: Path) -> Any:
    """The Transformers config of an architecture that is read here. Raises ModelRejected."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        raw = json.loads((folder / "config.json").read_text())
        architecture = (raw.get("architectures") or [""])[0]
        refusal = find_refusal(architecture)
        if refusal:
            raise ModelRejected(f"config.json: {refusal}")
        config = getattr(transformers, architecture).config_class.from_pretrained(
            folder, local_files_only=True
        )
    except LLMOSError:
        raise
    except Exception as error:
        raise ModelRejected(f"config.json: {say(error)}") from error
    quantization = raw.get("quantization_config")
    if quantization and quantization.get("quant_method") != METHOD:
        raise ModelRejected("config.json: quantized weights are not read by the native driver")
    if raw.get("model_type") not in (None, type(config).model_type):
        raise ModelRejected(
            f"config.json: {architecture} is a {type(config).model_type}, model_type says "
            f"{str(raw['model_type'])[:80]!r}"
        )
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", 0):
        raise ModelRejected(f"config.json: {architecture} with an encoder or cross-attention")
    config.architectures = [architecture]
    return config


def text_of(config: Any) -> Any:
    """Of the language model, where that is a part of it."""
    return config.get_text_config(decoder=True)


def _attention_of(config: Any) -> str | dict[str, str]:
    """Ours, and that of Transformers for what an image goes through."""
    if config.architectures[0] not in SEEING:
        return attention.IMPLEMENTATION
    return {"": "sdpa", "vision_config": "sdpa", "text_config": attention.IMPLEMENTATION}


def _choose_device(device: str) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise LoadFailed(f"device {device!r}: {say(error)}") from error
    return chosen


def choose_dtype(dtype: str, config: Any, folder: Path, device: torch.device) -> torch.dtype:
    """The asked type; `auto`: the checkpoint's, float32 where the CPU has no such arithmetic."""
    if dtype != "auto":
        if dtype not in _DTYPES:
            raise LoadFailed(f"dtype {dtype!r}: not one of auto, {', '.join(_DTYPES)}")
        return _DTYPES[dtype]
    found = checkpoint_dtype(config, folder)
    if device.type == "cpu" and found is not torch.float32 and not _cpu_has(found):
        return torch.float32
    return found


def checkpoint_dtype(config: Any, folder: Path) -> torch.dtype:
    """What a model's weights are in: as its config says, else as they are; float32 for others."""
    said = getattr(config, "dtype", None)
    found = said if isinstance(said, torch.dtype) else _stored_dtype(folder)
    return found if found in _DTYPES.values() else torch.float32


def _stored_dtype(folder: Path) -> torch.dtype:
    """The type of the first tensor; float32 when there is none to read."""
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor.dtype
    return torch.float32


def _cpu_has(dtype: torch.dtype) -> bool:
    return computes(str(dtype).removeprefix("torch."))


def _read_model(
    folder: Path, config: Any, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    attention.register()
    cls = getattr(transformers, config.architectures[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, info = cls.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=_attention_of(config),
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they come back by name, and are refused
                local_files_only=True,
                output_loading_info=True,
            )
        model = model.to(device).eval().requires_grad_(False)
    except Exception as error:
        raise LoadFailed(f"{folder.name}: {say(error)}") from error
    _check_tensors(info)
    return model  # type: ignore[no-any-return]


def _check_tensors(info: dict[str, Any]) -> None:
    for what, kind in (
        ("missing_keys", "missing from the files"),
        ("mismatched_keys", "of the wrong shape"),
        ("error_msgs", "unreadable"),
    ):
        names = sorted(str(name) for name in info.get(what) or ())
        if names:
            raise ModelRejected(f"{len(names)} tensors are {kind}: {', '.join(names[:4])}")
    unexpected = sorted(info.get("unexpected_keys") or ())
    if unexpected:
        _log.warning("%d tensors are not used: %s", len(unexpected), ", ".join(unexpected[:8]))


def bound_context(config: Any, context_length: int) -> int:
    """What was asked for, as far as the model's positions reach."""
    limit = getattr(config, "max_position_embeddings", None) or context_length
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type")} | {
        sub.get("rope_type") for sub in rope.values() if isinstance(sub, dict)
    }
    if kinds & set(_ROPES_OF_LENGTH):
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        # beyond it the angles of one request would follow its neighbours' lengths
        limit = min(limit, original or limit)
    return int(min(context_length, limit))


def _layer_windows(config: Any) -> list[int | None]:
    num_layers = config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = ["full_attention" if window is None else "sliding_attention"] * num_layers
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown:
        raise ModelRejected(f"config.json: layers of type {', '.join(unknown)} are not supported")
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _probe(
    model: torch.nn.Module, config: Any, windows: list[int | None], device: torch.device
) -> tuple[int, list[LayerShape]]:
    """Run two tokens and see how each layer calls attention. Refuses what we would get wrong."""
    plan = ProbePlan()
    ids = torch.zeros(1, 2, dtype=torch.long, device=device)
    positions = torch.arange(2, device=device)[None]
    try:
        with torch.inference_mode():
            out = model(input_ids=ids, position_ids=positions, use_cache=False, llmos_plan=plan)
    except Exception as error:
        raise LoadFailed(f"{config.architectures[0]}: {say(error)}") from error
    if [call.layer for call in plan.calls] != list(range(len(windows))):
        raise ModelRejected(
            f"{config.architectures[0]}: {len(plan.calls)} attention calls for {len(windows)} "
            "layers; such an arrangement is not supported"
        )
    for call in plan.calls:
        if call.extras:
            raise ModelRejected(
                f"{config.architectures[0]}: attention with {', '.join(call.extras)} is not "
                "supported"
            )
        if call.window is not None and call.window != windows[call.layer]:
            raise ModelRejected(
                f"config.json: layer {call.layer} asks for a window of {call.window} tokens, "
                f"the configuration says {windows[call.layer]}"
            )
    return int(out.logits.shape[-1]), plan.shapes


def find_eos(folder: Path, config: Any) -> frozenset[int]:
    """End tokens: of generation_config.json if it names any, else of config.json."""
    found = None
    try:
        found = json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        _log.debug("no readable generation_config.json")
    if found is None:
        found = getattr(config, "eos_token_id", None)
    ids = found if isinstance(found, list) else [found]
    return frozenset(i for i in ids if isinstance(i, int))


def say(error: BaseException) -> str:
    """An error of a library, cut to a length that people read."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= 500 else text[:500] + " …"
