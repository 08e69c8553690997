"""The echo's account of pages: that of an engine with a prefix cache, and nothing in the pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmos.drivers.native.paging import Lease, Pages

TOKEN_BYTES = 4
"""What the keys and values of a token would take: an echo has none, so its id stands for them."""


@dataclass(frozen=True, slots=True)
class KVBytes:
    """All there is, what requests use, and what nobody uses but may be found."""

    reserved: int = 0
    used: int = 0
    cached: int = 0


class EchoPages:
    """Takes prompts as read as soon as they have pages. With 0 pages there is no account."""

    def __init__(self, num_pages: int, page_tokens: int) -> None:
        self._pages = Pages(num_pages, page_tokens) if num_pages else None
        self._leases: dict[str, Lease] = {}

    @property
    def is_kept(self) -> bool:
        """Whether there is an account."""
        return self._pages is not None

    @property
    def num_tokens(self) -> int | None:
        """How many fit in all pages; None: any number."""
        return None if self._pages is None else self._pages.num_pages * self._pages.page_tokens

    def seat(
        self, request_id: str, salt: str, tokens: Sequence[int], max_tokens: int
    ) -> int | None:
        """Take pages and let others find them: how many tokens were found; None: no room now."""
        if self._pages is None:
            return 0
        lease = self._pages.open(salt, tokens, max_tokens)
        if lease is None:
            return None
        lease.grow(len(tokens))
        self._pages.publish(lease, tokens)
        self._leases[request_id] = lease
        return lease.num_cached

    def grow(self, request_id: str, num_tokens: int) -> None:
        if lease := self._leases.get(request_id):
            lease.grow(num_tokens)

    def leave(self, request_id: str, tokens: Sequence[int], *, poisoned: bool) -> None:
        """It is in no row any more: its pages are cached, or free."""
        if self._pages is not None and (lease := self._leases.pop(request_id, None)):
            self._pages.close(lease, tokens, poisoned=poisoned)

    def clear(self) -> None:
        """Forget what is cached; nobody has a row."""
        if self._pages is not None:
            self._pages.clear()

    def count(self) -> KVBytes:
        """As if each token took `TOKEN_BYTES`."""
        pages = self._pages
        if pages is None:
            return KVBytes()
        size = pages.page_tokens * TOKEN_BYTES
        return KVBytes(pages.num_pages * size, pages.num_used * size, pages.num_evictable * size)
