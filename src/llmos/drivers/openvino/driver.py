"""`abi.Driver` over OpenVINO: what is loaded in which precision, and what it takes."""

from __future__ import annotations

import os
from pathlib import Path

from llmos.abi.driver import Capabilities, ReplicaSpec
from llmos.drivers.batcher.driver import BatcherDriver
from llmos.drivers.batcher.engine import Opened, Progress
from llmos.drivers.openvino.engine import OpenVINOEngine, Plan
from llmos.drivers.openvino.library import library, version
from llmos.drivers.openvino.limits import ROOM_BYTES
from llmos.drivers.resident import read_resident
from llmos.errors import LLMOSError, LoadFailed
from llmos.weights import ModelFacts

_CAPABILITIES = Capabilities(driver="openvino", kinds=["generate"], formats=["openvino"])
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_KV_BYTES = {"f32": 4, "f16": 2}


class OpenVINODriver(BatcherDriver):
    """See `BatcherDriver`."""

    def __init__(self) -> None:
        super().__init__(_CAPABILITIES, open_openvino)


def open_openvino(spec: ReplicaSpec, facts: ModelFacts, progress: Progress) -> Opened:
    """Raises LoadFailed."""
    if spec.options:
        raise LoadFailed(f"the openvino driver has no options ({', '.join(spec.options)[:200]})")
    if spec.device != "cpu":
        raise LoadFailed(f"device {spec.device!r}: the openvino driver computes on the CPU")
    try:
        openvino, _ = library()
    except LLMOSError as error:
        raise LoadFailed(error.message) from error
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = choose_precision(spec.dtype, facts, has_bfloat16="BF16" in able)
    context_length = min(spec.context_length, facts.context_length)
    kv_precision = "f32" if facts.kv_dtype == "float32" else "f16"
    plan = Plan(
        folder=Path(spec.folder),
        num_slots=spec.num_slots,
        context_length=context_length,
        num_threads=spec.num_threads or len(os.sched_getaffinity(0)),
        precision=precision,
        kv_precision=kv_precision,
    )
    engine = OpenVINOEngine(plan)
    progress(0.8, "first pass")
    engine.warm_up()
    per_token = 2 * facts.num_layers * facts.num_kv_heads * facts.head_dim
    return Opened(
        engine=engine,
        dtype=facts.quantization.removeprefix("openvino-") or facts.dtype,
        device="cpu",
        context_length=context_length,
        num_slots=spec.num_slots,
        kv_token_bytes=per_token * _KV_BYTES[kv_precision],
        kv_reserved_bytes=engine.kv_bytes,
        weights_bytes=facts.weights_bytes,
        resident=read_resident,
        room_bytes=engine.kv_bytes + ROOM_BYTES,
        about=f"{version()}, computing in {precision}, keys and values in {kv_precision}",
    )


def choose_precision(asked: str, facts: ModelFacts, *, has_bfloat16: bool) -> str:
    """What is computed in, by the engine's name. Raises LoadFailed.

    Weights that are float32 are computed with as they are; others in bfloat16 where the processor
    has it, which is what OpenVINO would choose.
    """
    stored = facts.quantization.removeprefix("openvino-") or facts.dtype
    if asked in {"auto", stored}:
        exact = facts.dtype == "float32" and not facts.quantization
        return "bf16" if has_bfloat16 and not exact else "f32"
    if asked not in _PRECISIONS:
        known = ", ".join(sorted({"auto", stored, *_PRECISIONS}))
        raise LoadFailed(f"dtype {asked!r}: the openvino driver computes in {known}")
    return _PRECISIONS[asked]
