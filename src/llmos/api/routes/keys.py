"""/os/v1/keys: who may ask."""

from __future__ import annotations

from llmos.abi.syscall import KeyList, ListKeys, NewKey, RevokedKey, RevokeKey
from llmos.api.bodies.admin import KeyBody
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import answer, ask, ref_of
from llmos.api.wire import to_wire
from llmos.shapes.inputs import read_plain


async def list_keys(call: Call) -> None:
    """Every key of the tenants the principal may see."""
    await answer(call, ListKeys(), KeyList)


async def add_key(call: Call) -> None:
    """The secret is in this answer and nowhere else."""
    await answer(call, read_plain(KeyBody, await read_json(call)).to_call(), NewKey)


async def revoke_key(call: Call) -> None:
    """End a key at once; the answer is its record."""
    revoked = await ask(call, RevokeKey(ref_of(call, "key")), RevokedKey)
    await call.send_json(to_wire(revoked.key))


ROUTES = [
    RouteSpec("GET", "/os/v1/keys", list_keys, "Keys, without their secrets."),
    RouteSpec("POST", "/os/v1/keys", add_key, "A new key; its secret is shown once.", body=KeyBody),
    RouteSpec("DELETE", "/os/v1/keys/{key}", revoke_key, "Revoke a key by id or name."),
]
