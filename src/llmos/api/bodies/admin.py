"""Bodies of our own API."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from llmos.abi.feedback import MAX_COMMENT_CHARS, AddFeedback, Rating
from llmos.abi.principal import MAX_WEIGHT, MIN_WEIGHT, Role, ServiceClass
from llmos.abi.registry import PullOptions
from llmos.abi.remote import read_spec
from llmos.abi.syscall import AddKey, AliasModel, LoadModel, NiceProcess, PullModel, QuantizeModel
from llmos.shapes.check import Shape
from llmos.shapes.fields import fault
from llmos.shapes.options import CLASSES

MAX_KEEP_ALIVE_S = 3_153_600_000
"""A hundred years: for ever, in nanoseconds of 64 bits."""


class PullBody(Shape):
    """`source` is `hf:org/name[@revision]`, `file:/absolute/path`, `upload:ID`, or of a model that
    stays elsewhere `openai:https://host/v1#model`, which `remote` says more of. `driver` absent:
    the one that is best for it here. `base`: of an adapter, the version here it was learned on."""

    source: str = Field(min_length=1, max_length=4096)
    name: str | None = Field(default=None, min_length=1, max_length=256)
    driver: str | None = Field(default=None, min_length=1, max_length=64)
    remote: dict[str, Any] | None = None
    base: str | None = Field(default=None, min_length=1, max_length=256)

    def to_call(self) -> PullModel:
        """Raises InvalidRequest naming the field of `remote`."""
        remote = None if self.remote is None else read_spec(self.remote)
        return PullModel(self.source, self.name, PullOptions(self.driver, remote, self.base))


class QuantizeBody(Shape):
    """A new version of a model, its weights `to` 8 or 4 bits. `name` absent: its own, and `to`."""

    to: Literal["int8", "int4"]
    name: str | None = Field(default=None, min_length=1, max_length=256)

    def to_call(self, ref: str) -> QuantizeModel:
        return QuantizeModel(ref, self.to, self.name)


class AliasBody(Shape):
    """`NAME:alias` is this version from now on; `reason` is kept with it."""

    alias: str = Field(min_length=1, max_length=64)
    reason: str = Field(default="", max_length=4096)

    def to_call(self, ref: str) -> AliasModel:
        return AliasModel(ref, self.alias, self.reason)


class LoadBody(Shape):
    """`keep_alive_s`: how long the model then stays unused; `dtype`: the type of its weights in
    memory; `draft`: a smaller model that guesses ahead. Absent: as it was."""

    keep_alive_s: float | None = Field(default=None, ge=0, le=MAX_KEEP_ALIVE_S)
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] | None = None
    draft: str | None = Field(default=None, min_length=1, max_length=256)

    def to_call(self, ref: str) -> LoadModel:
        return LoadModel(ref, self.keep_alive_s, self.dtype, self.draft)


class NiceBody(Shape):
    """How urgent a live process is from now on; what is absent stays as it was."""

    nice: int | None = Field(default=None, ge=-20, le=19)
    service_class: Literal["batch", "default", "interactive"] | None = Field(
        default=None, alias="class"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.nice is None and self.service_class is None:
            raise fault("'nice' or 'class' must be given", "nice")
        return self

    def to_call(self, process_id: str) -> NiceProcess:
        service_class = None if self.service_class is None else CLASSES[self.service_class]
        return NiceProcess(process_id, self.nice, service_class)


class KeyBody(Shape):
    """A new key. `weight` is its principal's share among equals."""

    name: str = Field(min_length=1, max_length=128)
    tenant: str = Field(min_length=1, max_length=128)
    role: Literal["admin", "user"] = "user"
    max_class: Literal["batch", "default", "interactive"] = "interactive"
    weight: float = Field(default=1.0, ge=MIN_WEIGHT, le=MAX_WEIGHT)

    def to_call(self) -> AddKey:
        max_class: ServiceClass = CLASSES[self.max_class]
        return AddKey(self.name, self.tenant, Role(self.role), max_class, self.weight)


class FeedbackForm(Shape):
    """What an answer was worth. `request_id` is the one its `llmos` and `x-request-id` tell."""

    request_id: str = Field(min_length=1, max_length=64)
    rating: Literal["up", "down"]
    comment: str = Field(default="", max_length=MAX_COMMENT_CHARS)

    def to_call(self) -> AddFeedback:
        return AddFeedback(self.request_id, Rating(self.rating), self.comment)
