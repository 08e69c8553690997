"""Identifiers: a type prefix and a UUIDv7 (RFC 9562 section 5.7), so ids sort by creation."""

from __future__ import annotations

import os
import time
import uuid
from typing import Literal

Prefix = Literal[
    "req",
    "job",
    "mdl",
    "rep",
    "wrk",
    "key",
    "prn",
    "ten",
    "upl",
    "evt",
    "snp",
    "file",
    "sch",
    "msg",
]


def uuid7(now_ns: int, random: bytes) -> uuid.UUID:
    """A UUIDv7 of `now_ns` (UTC, ns) and at least 10 random bytes."""
    millis = (now_ns // 1_000_000) & 0xFFFF_FFFF_FFFF
    rand = int.from_bytes(random[:10], "big")
    value = (
        millis << 80 | 0x7 << 76 | (rand >> 62 & 0xFFF) << 64 | 0b10 << 62 | rand & (1 << 62) - 1
    )
    return uuid.UUID(int=value)


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `req_0193…`: the prefix and 32 hexadecimal digits."""
    return f"{prefix}_{uuid7(time.time_ns(), os.urandom(10)).hex}"
