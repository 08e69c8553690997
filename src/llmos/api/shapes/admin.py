"""Bodies of our own API."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmos.abi.principal import Role, ServiceClass
from llmos.abi.syscall import AddKey, PullModel
from llmos.api.shapes.check import Shape
from llmos.api.shapes.options import CLASSES


class PullBody(Shape):
    """`source` is `hf:org/name[@revision]`, `file:/absolute/path` or `upload:ID`."""

    source: str = Field(min_length=1, max_length=4096)
    name: str | None = Field(default=None, min_length=1, max_length=256)

    def to_call(self) -> PullModel:
        return PullModel(self.source, self.name)


class KeyBody(Shape):
    """A new key. `weight` is its principal's share among equals."""

    name: str = Field(min_length=1, max_length=128)
    tenant: str = Field(min_length=1, max_length=128)
    role: Literal["admin", "user"] = "user"
    max_class: Literal["batch", "default", "interactive"] = "interactive"
    weight: float = Field(default=1.0, gt=0, le=1000)

    def to_call(self) -> AddKey:
        max_class: ServiceClass = CLASSES[self.max_class]
        return AddKey(self.name, self.tenant, Role(self.role), max_class, self.weight)
