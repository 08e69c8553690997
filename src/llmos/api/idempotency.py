"""`Idempotency-Key`: a client's word that two requests are one."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from llmos.abi.jobs import Idempotency
from llmos.api.call import Call
from llmos.api.parameters import Text
from llmos.errors import InvalidRequest

MAX_KEY_CHARS = 255
IDEMPOTENCY_KEY = Text("Idempotency-Key", "Requests with the same key and body are one")

_encode = msgspec.json.Encoder(order="deterministic").encode


def idempotency_of(call: Call, asked: Any) -> Idempotency | None:
    """The client's key with a digest of the route and of `asked` (JSON-able), if it sent one.

    Raises InvalidRequest for what is no key.
    """
    given = call.headers.get(b"idempotency-key")
    if given is None:
        return None
    key = given.decode("latin-1").strip()
    if not key or len(key) > MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            f"'Idempotency-Key' is 1 to {MAX_KEY_CHARS} printable ASCII characters.",
            param="Idempotency-Key",
        )
    route = f"{call.scope['method']} {call.scope['path']}\n".encode("utf-8", "surrogateescape")
    return Idempotency(key, "sha256:" + hashlib.sha256(route + _encode(asked)).hexdigest())
