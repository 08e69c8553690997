"""System calls on keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def add_key(kernel: Kernel, call: Call, body: sc.AddKey) -> sc.NewKey:
    """The secret is in this answer and nowhere else. Raises Conflict."""
    key, secret = await kernel.keys.add(
        body.name, body.tenant, body.role, body.max_class, body.weight
    )
    return sc.NewKey(key, secret)


async def list_keys(kernel: Kernel, call: Call, body: sc.ListKeys) -> sc.KeyList:
    """Without secrets, revoked ones too."""
    return sc.KeyList(await kernel.keys.list())


async def revoke_key(kernel: Kernel, call: Call, body: sc.RevokeKey) -> sc.RevokedKey:
    """From now on it opens nothing, and its schedules submit no more jobs. Raises NotFound."""
    key = await kernel.keys.revoke(body.key)
    await kernel.jobs.end_revoked_schedules(key.tenant_id)
    return sc.RevokedKey(key)
