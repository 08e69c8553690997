"""/os/v1/keys: who may ask."""

from __future__ import annotations

from llmos.abi.principal import Key
from llmos.abi.syscall import KeyList, ListKeys, NewKey, RevokedKey, RevokeKey
from llmos.api.bodies.admin import KeyBody
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.errors import Conflict, QuotaExceeded
from llmos.shapes.inputs import read_plain


async def list_keys(call: Call) -> KeyList:
    """Every key of the tenants the principal may see."""
    return await ask(call, ListKeys(), KeyList)


async def add_key(call: Call) -> NewKey:
    """The secret is in this answer and nowhere else."""
    body = read_plain(KeyBody, await read_json(call))
    return await ask(call, body.to_call(), NewKey)


async def revoke_key(call: Call) -> Key:
    """End a key at once; the answer is its record."""
    return (await ask(call, RevokeKey(ref_of(call, "key")), RevokedKey)).key


ROUTES = [
    RouteSpec("GET", "/os/v1/keys", list_keys, "Keys, without their secrets."),
    RouteSpec(
        "POST",
        "/os/v1/keys",
        add_key,
        "A new key; its secret is shown once.",
        body=KeyBody,
        raises=(Conflict, QuotaExceeded),
    ),
    RouteSpec("DELETE", "/os/v1/keys/{key}", revoke_key, "Revoke a key by id or name."),
]
