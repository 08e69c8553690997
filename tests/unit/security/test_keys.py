from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from llmos.abi.principal import Principal, Role, ServiceClass
from llmos.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
)
from llmos.security.config import SecurityConfig
from llmos.security.keys import Keys
from llmos.storage.database import open_database
from llmos.storage.home import Home, open_home

MakeKeys = Callable[..., AbstractAsyncContextManager[tuple[Keys, Home]]]


@pytest.fixture
def opened(tmp_path: Path, migrated: Path) -> MakeKeys:
    @asynccontextmanager
    async def make(**config: int) -> AsyncIterator[tuple[Keys, Home]]:
        home = open_home(tmp_path / "home")
        if not any(home.db.iterdir()):
            shutil.copy(migrated, home.db)
        database = open_database(home.db)
        keys = Keys(home, database, SecurityConfig(**config))
        await keys.open()
        try:
            yield keys, home
        finally:
            database.close()
            home.close()

    return make


async def _add(keys: Keys, name: str, tenant: str = "a", weight: float = 1.0) -> None:
    await keys.add(name, tenant, Role.USER, ServiceClass.DEFAULT, weight)


def test_the_homes_token_is_the_admin_and_stays_one(opened: MakeKeys) -> None:
    async def main() -> Principal:
        async with opened() as (keys, home):
            return keys.authenticate(home.token)

    admin = asyncio.run(main())
    assert (admin.name, admin.tenant_id, admin.role) == ("admin", "default", Role.ADMIN)
    assert asyncio.run(main()) == admin


def test_a_key_works_at_once_after_a_restart_and_until_revoked(opened: MakeKeys) -> None:
    async def main() -> None:
        async with opened() as (keys, _):
            key, secret = await keys.add("zhang", "lab", Role.USER, ServiceClass.BATCH, 2.5)
            principal = keys.authenticate(secret)
            assert principal.principal_id == key.principal_id
            assert principal.tenant_id == key.tenant_id != "default"
            assert (principal.max_class, principal.weight) == (ServiceClass.BATCH, 2.5)
        async with opened() as (keys, _):
            assert keys.authenticate(secret) == principal
            assert await keys.list() == [key]
            revoked = await keys.revoke("zhang")
            assert revoked.revoked_ns is not None
            with pytest.raises(AuthenticationFailed):
                keys.authenticate(secret)
            with pytest.raises(NotFound):
                await keys.revoke("zhang")
            again, other = await keys.add("zhang", "lab", Role.USER, ServiceClass.BATCH, 2.5)
            assert other != secret
            assert again.tenant_id == key.tenant_id
            assert keys.is_revoked(key.principal_id)
            assert not keys.is_revoked(again.principal_id)
            await keys.revoke(again.key_id)
        async with opened() as (keys, _):
            revoked_ids = [key.principal_id, again.principal_id, "prn_of_another_home"]
            assert [keys.is_revoked(each) for each in revoked_ids] == [True, True, False]
            for old in (secret, other):
                with pytest.raises(AuthenticationFailed):
                    keys.authenticate(old)
            assert [k.revoked_ns is None for k in await keys.list()] == [False, False]

    asyncio.run(main())


@pytest.mark.parametrize("secret", ["", "x", "llmos_", "密钥 🔑", "\ud800", "a" * 10_000_000, "\0"])
def test_anything_else_is_refused(opened: MakeKeys, secret: str) -> None:
    async def main() -> None:
        async with opened() as (keys, _):
            with pytest.raises(AuthenticationFailed):
                keys.authenticate(secret)

    asyncio.run(main())


def test_no_secret_is_on_disk_but_the_token_file(opened: MakeKeys, tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        async with opened() as (keys, home):
            _, secret = await keys.add("zhang", "lab", Role.USER, ServiceClass.BATCH, 1.0)
            _scan(tmp_path, [secret.encode(), home.token.encode()])  # while the log still has it
            return [secret.encode(), home.token.encode()]

    _scan(tmp_path, asyncio.run(main()))


def _scan(folder: Path, secrets: list[bytes]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "token":
            data = path.read_bytes()
            for secret in secrets:
                assert secret not in data, path
                assert secret.removeprefix(b"llmos_") not in data, path


def test_refusals(opened: MakeKeys) -> None:
    async def main() -> None:
        async with opened(max_keys=1) as (keys, _):
            for name in ("", "a b", "名", "a" * 97, "a\n", "\ud800"):
                with pytest.raises(InvalidRequest, match="bad name"):
                    await _add(keys, name)
            with pytest.raises(InvalidRequest, match="bad tenant"):
                await _add(keys, "a", tenant="../x")
            for weight in (0.0, 5e-324, 0.0009, -1.0, float("nan"), float("inf"), 1e9):
                with pytest.raises(InvalidRequest, match="weight"):
                    await _add(keys, "a", weight=weight)
            with pytest.raises(Conflict):
                await _add(keys, "admin")
            await _add(keys, "a")
            with pytest.raises(QuotaExceeded):
                await _add(keys, "b")
            with pytest.raises(NotFound):
                await keys.revoke("nobody 😀")
            for name in ("admin", "", "\ud800", "x" * 10_000):
                with pytest.raises(NotFound):
                    await keys.revoke(name)

    asyncio.run(main())


def test_a_name_in_use(opened: MakeKeys) -> None:
    async def main() -> None:
        async with opened() as (keys, _):
            results = await asyncio.gather(
                *(_add(keys, "same", tenant=f"t{n}") for n in range(4)), return_exceptions=True
            )
            assert sum(isinstance(r, Conflict) for r in results) == 3
            assert len(await keys.list()) == 1

    asyncio.run(main())
