"""A model folder to a fused runner, or the reason why torch has to run it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from llmos.abi.driver import ReplicaSpec
from llmos.drivers.native import load
from llmos.drivers.native.fused import binding, build, spec
from llmos.drivers.native.fused.describe import describe
from llmos.drivers.native.fused.engine import Engine
from llmos.drivers.native.fused.residence import Residence
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.drivers.native.fused.tensors import MappedTensors
from llmos.drivers.native.fused.weights import BITS, TORCH_DTYPES, Weights
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.machine import num_cores
from llmos.drivers.native.runner import ModelInfo
from llmos.drivers.native.weights import identities
from llmos.errors import LoadFailed

Unsupported = spec.Unsupported
_log = logging.getLogger(__name__)


def open_fused(asked: ReplicaSpec, *, guesses: bool) -> FusedRunner:
    """Raises Unsupported with the reason; ModelRejected, LoadFailed as any load does."""
    if asked.device != "cpu":
        raise Unsupported(f"its kernels are for the processor, not for {asked.device}")
    folder = Path(asked.folder)
    library = _library(Path(asked.scratch) if asked.scratch else None)
    files = identities(folder)
    config = load.read_config(folder)
    bits = _stored_bits(config)
    tensors = MappedTensors(folder, quantized=bits is not None)
    decoder = describe(config, tensors.shapes())
    dtype = _choose_dtype(asked.dtype, config, folder, bits)
    context_length = load.bound_context(config, asked.context_length)
    context_length = min(context_length, decoder.max_length or context_length)
    weights = Weights(decoder, tensors, dtype, context_length)
    if unused := tensors.unused():
        _log.warning("%s: tensors that the model does not have: %s", folder, ", ".join(unused))
    num_threads = asked.num_threads or num_cores()
    kv_dtype = dtype if dtype in ("float32", "float16") else "bfloat16"

    def open_engine() -> Engine:
        return Engine(
            library,
            decoder,
            weights,
            kv_dtype=kv_dtype,
            num_pages=asked.num_slots * -(-context_length // binding.PAGE_TOKENS),
            max_rows=max(LIMITS.step_tokens, asked.num_slots + LIMITS.draft_rows),
            max_wanted=asked.num_slots + LIMITS.draft_rows,
            num_threads=num_threads,
        )

    info = ModelInfo(
        engine="fused",
        dtype=dtype,
        device="cpu",
        vocab_size=decoder.vocab_size,
        context_length=context_length,
        eos_ids=load.find_eos(folder, config),
        exact_by_default=True,
        why=f"kernels for {', '.join(library.features) or 'any processor'}, {num_threads} threads",
    )
    return FusedRunner(
        info,
        Residence(folder, files, weights),
        open_engine,
        [(layer.num_kv_heads, layer.head_dim, layer.head_dim) for layer in decoder.layers],
        library.features,
        num_slots=asked.num_slots,
        guesses=guesses,
    )


def _library(scratch: Path | None) -> binding.Library:
    try:
        return binding.Library(build.library(scratch))
    except (build.CannotBuild, OSError, ValueError) as error:
        raise Unsupported(f"its kernels could not be compiled: {error}") from error


def _stored_bits(config: Any) -> int | None:
    """Of a model that is stored quantized; what its config says of it is taken off."""
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return None
    del config.quantization_config
    bits: int = quantization["bits"]
    return bits


def _choose_dtype(asked: str, config: Any, folder: Path, bits: int | None) -> str:
    if bits is not None:
        stored = next(name for name, of in BITS.items() if of == bits)
        if asked not in ("auto", stored):
            raise LoadFailed(f"dtype {asked!r}: the model is stored in {stored}")
        return stored
    if asked in BITS or asked in TORCH_DTYPES:
        return asked
    if asked != "auto":
        raise LoadFailed(f"dtype {asked!r}: not one of auto, {', '.join((*TORCH_DTYPES, *BITS))}")
    # kernels read 16-bit weights on any processor: never more memory than the checkpoint takes
    return str(load.checkpoint_dtype(config, folder)).removeprefix("torch.")


__all__ = ["Unsupported", "open_fused"]
