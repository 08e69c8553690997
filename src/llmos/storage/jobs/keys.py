"""Idempotency keys: what was made with one, and that it is not made twice."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select, text

from llmos.abi.jobs import Idempotency
from llmos.errors import IdempotencyMismatch, InvalidRequest
from llmos.storage.tables import idempotency

MAX_KEY_CHARS = 255
_ids = msgspec.json.Decoder(list[str])

_KEEP = text(
    "INSERT INTO idempotency (principal_id, key, request_digest, ids, created_ns, epoch) VALUES "
    "(:principal_id, :key, :request_digest, :ids, :created_ns, :epoch) ON CONFLICT DO NOTHING"
)


def keep_key(
    connection: Connection,
    principal_id: str,
    given: Idempotency,
    ids: list[str],
    *,
    now_ns: int,
    epoch: int,
) -> list[str] | None:
    """Remember `ids` under the key, None; or the ids that were made with it before.

    To be called before anything is made. Raises IdempotencyMismatch, InvalidRequest.
    """
    check_key(given)
    values = {
        "principal_id": principal_id,
        "key": given.key,
        "request_digest": given.request_digest,
        "ids": msgspec.json.encode(ids).decode(),
        "created_ns": now_ns,
        "epoch": epoch,
    }
    if connection.execute(_KEEP, values).rowcount == 1:
        return None
    return find_key(connection, principal_id, given)


def find_key(connection: Connection, principal_id: str, given: Idempotency) -> list[str] | None:
    """The ids that were made with the key, None if there are none. Raises IdempotencyMismatch."""
    found = connection.execute(
        select(idempotency.c.request_digest, idempotency.c.ids).where(
            idempotency.c.principal_id == principal_id, idempotency.c.key == given.key
        )
    ).first()
    if found is None:
        return None
    if found.request_digest != given.request_digest:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used before, for something else", param="Idempotency-Key"
        )
    return _ids.decode(found.ids)


def check_key(given: Idempotency) -> None:
    """Raises InvalidRequest for a key that is empty or too long."""
    if not 0 < len(given.key) <= MAX_KEY_CHARS or "\x00" in given.key:
        raise InvalidRequest(
            f"an Idempotency-Key has 1 to {MAX_KEY_CHARS} characters", param="Idempotency-Key"
        )
