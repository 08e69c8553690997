"""Keys: made, shown once, stored hashed, looked up on every request.

Secrets are 256 random bits, so one SHA-256 is enough: slow hashes protect secrets that people
choose and others can guess. A presented secret is hashed and the digest looked up in a dictionary;
what timing there is depends on the digest, which nobody can steer without breaking SHA-256, and the
digests are compared in constant time besides.
"""

from __future__ import annotations

import builtins
import hashlib
import hmac
import re
import time

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from llmos.abi.ids import new_id
from llmos.abi.principal import MAX_WEIGHT, MIN_WEIGHT, Key, Principal, Role, ServiceClass
from llmos.errors import AuthenticationFailed, Conflict, InvalidRequest, NotFound, QuotaExceeded
from llmos.security.config import SecurityConfig
from llmos.storage.database import Database
from llmos.storage.home import Home, new_secret
from llmos.storage.tables import DEFAULT_TENANT, keys, principals, tenants

ADMIN = "admin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@\-]{0,95}")
_MAX_SECRET_LENGTH = 512


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


class Keys:
    """Implements `abi.KeyStore` and `abi.Authenticator`. Make it, then `await open()`.

    The home's token is the principal `admin` of the default tenant; it is no row among the keys,
    and is changed by removing the token file.
    """

    def __init__(
        self, home: Home, database: Database, config: SecurityConfig | None = None
    ) -> None:
        self._database = database
        self._config = config or SecurityConfig()
        self._admin_secret = _hash(home.token)
        self._by_secret: dict[bytes, tuple[bytes, Principal]] = {}
        self._names: dict[str, bytes] = {}
        self._revoked: set[str] = set()

    async def open(self) -> None:
        """Read the keys into memory, and make sure that the admin exists."""
        admin = await self._database.write(self._ensure_admin)
        self._by_secret = {self._admin_secret: (self._admin_secret, admin)}
        self._names = {}
        for row in await self._database.read(_load_active):
            self._remember(row.secret_sha256, row.name, _principal(row))
        self._revoked = set(await self._database.read(_load_revoked))

    def is_revoked(self, principal_id: str) -> bool:
        """See `abi.KeyStore`."""
        return principal_id in self._revoked

    def authenticate(self, secret: str) -> Principal:
        """See `abi.Authenticator`."""
        if 0 < len(secret) <= _MAX_SECRET_LENGTH:
            digest = _hash(secret)
            found = self._by_secret.get(digest)
            if found is not None and hmac.compare_digest(found[0], digest):
                return found[1]
        raise AuthenticationFailed("no valid key was given")

    async def add(
        self, name: str, tenant: str, role: Role, max_class: ServiceClass, weight: float
    ) -> tuple[Key, str]:
        """See `abi.KeyStore`. A tenant that does not exist yet is made."""
        _check(name, tenant, weight)
        if len(self._names) >= self._config.max_keys:
            raise QuotaExceeded(f"there are {len(self._names)} keys already")
        secret = new_secret()
        digest = _hash(secret)

        def store(connection: Connection) -> tuple[Key, Principal]:
            if name == ADMIN or _find_active(connection, name) is not None:
                raise Conflict(f"a key named {name!r} exists", param="name")
            now, epoch = time.time_ns(), self._database.epoch
            tenant_id = _ensure_tenant(connection, tenant, now, epoch)
            principal = Principal(new_id("prn"), tenant_id, name, role, max_class, weight)
            _insert_principal(connection, principal, now, epoch)
            key = Key(
                new_id("key"), name, tenant_id, principal.principal_id, role, max_class, weight, now
            )
            connection.execute(
                insert(keys).values(
                    key_id=key.key_id,
                    name=name,
                    tenant_id=tenant_id,
                    principal_id=principal.principal_id,
                    secret_sha256=digest,
                    created_ns=now,
                    epoch=epoch,
                )
            )
            return key, principal

        key, principal = await self._database.write(store)
        self._remember(digest, name, principal)
        return key, secret

    async def list(self) -> builtins.list[Key]:
        """All keys, revoked ones included, oldest first."""
        return [_key(row) for row in await self._database.read(_load_all)]

    async def revoke(self, key_id_or_name: str) -> Key:
        """See `abi.KeyStore`. Works from the next request on."""

        def store(connection: Connection) -> Key:
            known = _NAME.fullmatch(key_id_or_name)  # what cannot be a name cannot be asked for
            row = _find_active(connection, key_id_or_name) if known else None
            if row is None:
                raise NotFound(f"no active key {key_id_or_name[:100]!r}", param="key")
            now = time.time_ns()
            connection.execute(
                update(keys).where(keys.c.key_id == row.key_id).values(revoked_ns=now)
            )
            return msgspec.structs.replace(_key(row), revoked_ns=now)

        key = await self._database.write(store)
        self._by_secret.pop(self._names.pop(key.name, b""), None)
        self._revoked.add(key.principal_id)
        return key

    def _remember(self, digest: bytes, name: str, principal: Principal) -> None:
        self._by_secret[digest] = (digest, principal)
        self._names[name] = digest

    def _ensure_admin(self, connection: Connection) -> Principal:
        row = connection.execute(
            select(principals.c.principal_id).where(
                principals.c.tenant_id == DEFAULT_TENANT,
                principals.c.name == ADMIN,
                principals.c.role == Role.ADMIN.value,
            )
        ).first()
        principal_id = new_id("prn") if row is None else str(row.principal_id)
        admin = Principal(principal_id, DEFAULT_TENANT, ADMIN, Role.ADMIN)
        if row is None:
            _insert_principal(connection, admin, time.time_ns(), self._database.epoch)
        return admin


def _check(name: str, tenant: str, weight: float) -> None:
    for field, value in (("name", name), ("tenant", tenant)):
        if not _NAME.fullmatch(value):
            raise InvalidRequest(
                f"bad {field} {value[:80]!r}: letters, digits and ._@- , at most 96", param=field
            )
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise InvalidRequest(
            f"weight is a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}", param="weight"
        )


def _ensure_tenant(connection: Connection, name: str, now: int, epoch: int) -> str:
    found = connection.execute(select(tenants.c.tenant_id).where(tenants.c.name == name)).scalar()
    if found is not None:
        return str(found)
    tenant_id = new_id("ten")
    connection.execute(
        insert(tenants).values(tenant_id=tenant_id, name=name, created_ns=now, epoch=epoch)
    )
    return tenant_id


def _insert_principal(connection: Connection, principal: Principal, now: int, epoch: int) -> None:
    connection.execute(
        insert(principals).values(
            principal_id=principal.principal_id,
            tenant_id=principal.tenant_id,
            name=principal.name,
            role=principal.role.value,
            max_class=principal.max_class.value,
            weight=principal.weight,
            created_ns=now,
            epoch=epoch,
        )
    )


_JOINED = select(
    keys,
    principals.c.role,
    principals.c.max_class,
    principals.c.weight,
).join(principals, keys.c.principal_id == principals.c.principal_id)


def _load_all(connection: Connection) -> builtins.list[Row[tuple[object, ...]]]:
    return builtins.list(connection.execute(_JOINED.order_by(keys.c.created_ns)))


def _load_active(connection: Connection) -> builtins.list[Row[tuple[object, ...]]]:
    return builtins.list(connection.execute(_JOINED.where(keys.c.revoked_ns.is_(None))))


def _load_revoked(connection: Connection) -> builtins.list[str]:
    which = select(keys.c.principal_id).where(keys.c.revoked_ns.is_not(None))
    return builtins.list(connection.execute(which).scalars())


def _find_active(connection: Connection, key: str) -> Row[tuple[object, ...]] | None:
    matches = (keys.c.name == key) | (keys.c.key_id == key)
    return connection.execute(_JOINED.where(matches, keys.c.revoked_ns.is_(None))).first()


def _principal(row: Row[tuple[object, ...]]) -> Principal:
    return Principal(
        row.principal_id,
        row.tenant_id,
        row.name,
        Role(row.role),
        ServiceClass(row.max_class),
        row.weight,
    )


def _key(row: Row[tuple[object, ...]]) -> Key:
    return Key(
        row.key_id,
        row.name,
        row.tenant_id,
        row.principal_id,
        Role(row.role),
        ServiceClass(row.max_class),
        row.weight,
        row.created_ns,
        row.revoked_ns,
    )
