"""What a snapshot says of itself: the header of the file that a driver's `suspend` writes."""

from __future__ import annotations

import msgspec

from llmos.abi.inference import WorkItem

SNAPSHOT_FORMAT = 1
"""Raised by one with every change that an older reader would get wrong."""


class SnapshotHeader(msgspec.Struct, frozen=True):
    """One request as it was between two steps.

    `item` is what was submitted, `generated` the tokens drawn since (int32, little-endian), and
    `num_cached` how many tokens of both have their keys and values in the payload, of
    `payload_bytes`. `state` is the driver's own: sampler, text, what exactness rests on.
    """

    snapshot_id: str
    driver: str
    weights_digest: str
    dtype: str
    device: str
    num_threads: int
    item: WorkItem
    generated: bytes
    num_cached: int
    payload_bytes: int
    state: msgspec.Raw

    @property
    def owner(self) -> str:
        """Who alone may go on from it: the cache salt, which begins with the tenant's id."""
        return self.item.cache_salt
