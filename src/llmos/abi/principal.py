"""Who asks: tenants, principals, actions, resources, service classes."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec


class ServiceClass(enum.IntEnum):
    """Scheduling class. Larger is more urgent, so classes compare with `<`."""

    BATCH = 0
    DEFAULT = 1
    INTERACTIVE = 2


class Action(enum.StrEnum):
    """What a principal may do. One value per kind of right, not per route."""

    INFER = "infer"
    READ_MODELS = "models.read"
    WRITE_MODELS = "models.write"
    READ_PROCESSES = "processes.read"
    CONTROL_PROCESSES = "processes.control"
    SUBMIT_JOBS = "jobs.submit"
    READ_FILES = "files.read"
    WRITE_FILES = "files.write"
    READ_SYSTEM = "system.read"
    BACK_UP = "system.backup"
    ADMIN_KEYS = "keys.admin"


class Role(enum.StrEnum):
    """A named set of actions; the sets live in `security`."""

    ADMIN = "admin"
    USER = "user"


MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0
"""Of a key. Service is divided by it and added up: near 0, one request would be more than all."""


class Principal(msgspec.Struct, frozen=True):
    """The authenticated owner of a key. `max_class` is the highest class it may ask for."""

    principal_id: str
    tenant_id: str
    name: str
    role: Role = Role.USER
    max_class: ServiceClass = ServiceClass.INTERACTIVE
    weight: float = 1.0


class Resource(msgspec.Struct, frozen=True):
    """What an action is aimed at: a kind (`model`, `process`, `key` …), an id, its owner tenant."""

    kind: str
    id: str = "*"
    tenant_id: str | None = None


class Key(msgspec.Struct, frozen=True):
    """A key's record, without its secret. Times are UTC in ns."""

    key_id: str
    name: str
    tenant_id: str
    principal_id: str
    role: Role
    max_class: ServiceClass
    weight: float
    created_ns: int
    revoked_ns: int | None = None


class Authenticator(Protocol):
    """Turns a presented secret into a principal. Synchronous and fast: called on every request."""

    def authenticate(self, secret: str) -> Principal:
        """Raises AuthenticationFailed."""
        ...


class Authorizer(Protocol):
    """Decides whether a principal may act. Synchronous and fast: called by the gate."""

    def authorize(self, principal: Principal, action: Action, resource: Resource) -> None:
        """Raises PermissionDenied."""
        ...


class KeyStore(Protocol):
    """Keys of principals of tenants; secrets are stored hashed only."""

    async def add(
        self, name: str, tenant: str, role: Role, max_class: ServiceClass, weight: float
    ) -> tuple[Key, str]:
        """The record and the secret, which is shown once. Raises Conflict on a name in use."""
        ...

    async def list(self) -> list[Key]: ...

    async def revoke(self, key_id_or_name: str) -> Key:
        """Raises NotFound."""
        ...

    def is_revoked(self, principal_id: str) -> bool:
        """Whether it is one of this home whose key was revoked."""
        ...
