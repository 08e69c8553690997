"""A model folder to a fused runner, or the reason why torch has to run it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from llmos.abi.driver import DRAFTED_REQUESTS, DraftSpec, ReplicaSpec
from llmos.drivers.native import load
from llmos.drivers.native.fused import binding, build, spec
from llmos.drivers.native.fused.describe import describe
from llmos.drivers.native.fused.draft import Draft, pages_of
from llmos.drivers.native.fused.engine import Engine
from llmos.drivers.native.fused.residence import Residence
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.drivers.native.fused.same_tokens import check_same_tokens, has_tokenizer
from llmos.drivers.native.fused.tensors import MappedTensors
from llmos.drivers.native.fused.weights import BITS, TORCH_DTYPES, Weights
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.machine import num_cores
from llmos.drivers.native.runner import ModelInfo
from llmos.drivers.native.weights import identities
from llmos.errors import LoadFailed, ModelRejected
from llmos.weights.seeing import SEEING

Unsupported = spec.Unsupported
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Opened:
    """A model that is ready for an engine. `config` is Transformers'."""

    config: Any
    decoder: spec.Decoder
    weights: Weights
    residence: Residence
    dtype: str
    context_length: int

    @property
    def kv_dtype(self) -> str:
        return self.dtype if self.dtype in ("float32", "float16") else "bfloat16"


def open_fused(asked: ReplicaSpec, *, guesses: bool) -> FusedRunner:
    """Raises Unsupported with the reason; ModelRejected, LoadFailed as any load does."""
    if asked.device != "cpu":
        raise Unsupported(f"its kernels are for the processor, not for {asked.device}")
    folder = Path(asked.folder)
    library = _library(Path(asked.scratch) if asked.scratch else None)
    num_threads = asked.num_threads or num_cores()
    opened = _open(folder, asked.dtype, asked.context_length)
    decoder, context_length = opened.decoder, opened.context_length
    draft = None
    if asked.draft is not None:
        if not guesses:
            raise LoadFailed(f"{asked.draft.ref} is to guess ahead, but guesses are off")
        draft = _open_draft(asked.draft, asked, opened, library, num_threads)

    def open_engine() -> Engine:
        return Engine(
            library,
            decoder,
            opened.weights,
            kv_dtype=opened.kv_dtype,
            num_pages=asked.num_slots * -(-context_length // binding.PAGE_TOKENS),
            max_rows=max(LIMITS.step_tokens, asked.num_slots + LIMITS.draft_rows),
            max_wanted=asked.num_slots + LIMITS.draft_rows,
            num_threads=num_threads,
        )

    info = ModelInfo(
        engine="fused",
        dtype=opened.dtype,
        device="cpu",
        vocab_size=decoder.vocab_size,
        context_length=context_length,
        eos_ids=load.find_eos(folder, opened.config),
        exact_by_default=True,
        why=f"kernels for {', '.join(library.features) or 'any processor'}, {num_threads} threads",
    )
    return FusedRunner(
        info,
        opened.residence,
        open_engine,
        [(layer.num_kv_heads, layer.head_dim, layer.head_dim) for layer in decoder.layers],
        library.features,
        num_slots=asked.num_slots,
        guesses=guesses,
        draft=draft,
    )


def _open(folder: Path, dtype: str, context_length: int) -> _Opened:
    files = identities(folder)
    config = load.read_config(folder)
    if config.architectures[0] in SEEING:
        raise Unsupported("its kernels read no images")
    bits = _stored_bits(config)
    tensors = MappedTensors(folder, quantized=bits is not None)
    decoder = describe(config, tensors.shapes())
    chosen = _choose_dtype(dtype, config, folder, bits)
    context_length = load.bound_context(config, context_length)
    context_length = min(context_length, decoder.max_length or context_length)
    weights = Weights(decoder, tensors, chosen, context_length)
    if unused := tensors.unused():
        _log.warning("%s: tensors that the model does not have: %s", folder, ", ".join(unused))
    residence = Residence(folder, files, weights)
    return _Opened(config, decoder, weights, residence, chosen, context_length)


def _open_draft(
    draft: DraftSpec,
    asked: ReplicaSpec,
    target: _Opened,
    library: binding.Library,
    num_threads: int,
) -> Draft:
    """Raises LoadFailed with what it is about the draft model."""
    if draft.weights_digest == asked.weights_digest:
        raise LoadFailed(f"{draft.ref} cannot guess ahead for itself")
    try:
        opened = _open(Path(draft.folder), draft.dtype, asked.context_length)
    except (Unsupported, ModelRejected, LoadFailed) as error:
        raise LoadFailed(f"draft model {draft.ref}: {error}") from error
    check_same_tokens(draft.ref, Path(draft.folder), Path(asked.folder))
    sizes = opened.decoder.vocab_size, target.decoder.vocab_size
    if sizes[0] != sizes[1] and not has_tokenizer(Path(asked.folder)):
        raise LoadFailed(f"draft model {draft.ref}: {sizes[0]} tokens, the model has {sizes[1]}")
    if opened.residence.size_bytes > target.residence.size_bytes:
        raise LoadFailed(
            f"draft model {draft.ref} is larger than the model it is to guess for: "
            f"{opened.residence.size_bytes} against {target.residence.size_bytes} bytes in memory"
        )
    num_guessing = min(asked.num_slots, DRAFTED_REQUESTS)

    def open_engine() -> Engine:
        return Engine(
            library,
            opened.decoder,
            opened.weights,
            kv_dtype=opened.kv_dtype,
            num_pages=pages_of(asked.num_slots, opened.context_length),
            max_rows=LIMITS.draft_read_tokens,
            max_wanted=num_guessing,
            num_threads=num_threads,
        )

    return Draft(
        opened.residence,
        open_engine,
        vocab_size=target.decoder.vocab_size,
        context_length=opened.context_length,
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
