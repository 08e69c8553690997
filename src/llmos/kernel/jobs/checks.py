"""May a job be submitted? Everything that can be said before the store is asked."""

from __future__ import annotations

import time

import msgspec

from llmos.abi.jobs import INFER, JobSpec
from llmos.abi.principal import Principal
from llmos.abi.program import Generate
from llmos.errors import (
    InvalidRequest,
    ModelTooLarge,
    PayloadTooLarge,
    PermissionDenied,
)

MAX_NAME_CHARS = 256
MAX_PARTS = 256
"""Of files, needs and metadata each."""

MAX_METADATA_CHARS = 4096
MAX_ATTEMPTS = 100
MAX_INPUTS_BYTES = 16 << 20
MAX_SCHEDULED_BYTES = 64 << 10
"""A schedule's inputs: each of its jobs has a copy, and a list shows all of them."""

MAX_TIMEOUT_S = 365 * 86_400.0


def check_spec(spec: JobSpec, owner: Principal, budget_bytes: int) -> None:
    """Raises InvalidRequest, PermissionDenied, PayloadTooLarge, ModelTooLarge."""
    if spec.service_class > owner.max_class:
        highest = owner.max_class.name.lower()
        raise PermissionDenied(f"this key may ask for class {highest} at most", param="class")
    _check_numbers(spec)
    _check_sizes(spec)
    if spec.memory_bytes > budget_bytes:
        raise ModelTooLarge(
            f"the job asks for {spec.memory_bytes / (1 << 30):.2f} GiB, "
            f"the budget is {budget_bytes / (1 << 30):.2f} GiB",
            param="memory_bytes",
        )


def check_call(spec: JobSpec) -> None:
    """Of a call that is still to be made. Raises InvalidRequest."""
    if spec.program == INFER:
        try:
            msgspec.convert(spec.inputs.get("generate"), Generate)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"not a call: {error}", param="inputs.generate") from error


def check_scheduled(spec: JobSpec) -> None:
    """Of a job by the clock, besides. Raises InvalidRequest, PayloadTooLarge."""
    for name in ("start_at_ns", "expires_ns"):
        if getattr(spec, name) is not None:
            raise InvalidRequest(f"{name} is one moment, a schedule has many", param=f"spec.{name}")
    size = _inputs_size(spec)
    if size > MAX_SCHEDULED_BYTES:
        raise PayloadTooLarge(
            f"a schedule's inputs have {size} bytes, at most {MAX_SCHEDULED_BYTES}"
        )


def _check_numbers(spec: JobSpec) -> None:
    if not -20 <= spec.nice <= 19:
        raise InvalidRequest("nice is between -20 and 19", param="nice")
    if not 1 <= spec.max_attempts <= MAX_ATTEMPTS:
        raise InvalidRequest(f"max_attempts is between 1 and {MAX_ATTEMPTS}", param="max_attempts")
    if spec.memory_bytes < 0:
        raise InvalidRequest("memory_bytes is not negative", param="memory_bytes")
    if spec.timeout_s is not None and not 0 < spec.timeout_s <= MAX_TIMEOUT_S:
        raise InvalidRequest(f"timeout_s is above 0, at most {MAX_TIMEOUT_S:g}", param="timeout_s")
    if spec.expires_ns is not None and spec.expires_ns <= time.time_ns():
        raise InvalidRequest("expires_ns has passed already", param="expires_ns")
    latest_ns = 1 << 62
    for name in ("start_at_ns", "expires_ns"):
        value = getattr(spec, name)
        if value is not None and not 0 <= value < latest_ns:
            raise InvalidRequest(f"{name} is no time", param=name)


def _check_sizes(spec: JobSpec) -> None:
    if len(spec.name) > MAX_NAME_CHARS:
        raise InvalidRequest(f"a name has at most {MAX_NAME_CHARS} characters", param="name")
    for part in ("files", "models", "needs", "metadata"):
        if len(getattr(spec, part)) > MAX_PARTS:
            raise InvalidRequest(f"{part} has at most {MAX_PARTS} entries", param=part)
    if any(len(k) + len(v) > MAX_METADATA_CHARS for k, v in spec.metadata.items()):
        raise InvalidRequest(
            f"an entry of metadata has at most {MAX_METADATA_CHARS} characters", param="metadata"
        )
    size = _inputs_size(spec)
    if size > MAX_INPUTS_BYTES:
        raise PayloadTooLarge(f"inputs have {size} bytes, at most {MAX_INPUTS_BYTES}")


def _inputs_size(spec: JobSpec) -> int:
    try:
        return len(msgspec.json.encode(spec.inputs))
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRequest(f"inputs are not JSON: {error}", param="inputs") from error
