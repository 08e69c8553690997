"""Which page of the KV pool holds which tokens of whom.

A page has room for `page_tokens` tokens, in all layers. It is free, or private to one lease, or in
the prefix tree (`prefix`), where it is shared by the leases that pin it, or nobody pins it and it
stays until its room is wanted. Nothing here touches the KV itself, and it is for one thread.

Promises: a lease says how many tokens it may come to hold, and gets no more pages than that. What
is promised and not yet handed out is never more than what is free or can be evicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos.drivers.native.prefix import Node, PrefixTree


class Lease:
    """One request's pages: `pages` in the order of its tokens, of which `num_cached` were found.

    Shared pages come first, and are full: nobody writes to them. `num_room` tokens fit in `pages`.
    """

    __slots__ = (
        "_max_pages",
        "_nodes",
        "_num_found",
        "_pool",
        "is_closed",
        "num_cached",
        "num_room",
        "pages",
        "salt",
    )

    def __init__(self, pool: Pages, salt: str, found: list[Node], max_pages: int) -> None:
        self.salt = salt
        self.pages = [node.page for node in found]
        self.num_room = self.num_cached = len(found) * pool.page_tokens
        self.is_closed = False
        self._pool = pool
        self._nodes = found  # pinned by this lease: found ones, then those it published
        self._num_found = len(found)
        self._max_pages = max_pages

    def grow(self, num_tokens: int) -> list[int]:
        """Room for so many tokens in all; returns the pages that were added for it.

        Raises ValueError beyond what was reserved.
        """
        if num_tokens <= self.num_room:
            return []
        return self._pool._grow(self, num_tokens)

    def _end(self) -> None:
        self.is_closed = True
        self.pages, self._nodes = [], []
        self.num_room = 0


class Pages:
    """`num_pages` pages. Counts are of pages, but for `num_hits` and `num_misses`: tokens."""

    def __init__(self, num_pages: int, page_tokens: int = 16) -> None:
        if num_pages < 1 or page_tokens < 1:
            raise ValueError(f"{num_pages} pages of {page_tokens} tokens")
        self.num_pages = num_pages
        self.page_tokens = page_tokens
        self.num_leases = 0
        self.num_promised = 0
        self.num_hits = 0
        self.num_misses = 0
        self.num_evicted = 0
        self._free = list(range(num_pages - 1, -1, -1))
        self._tree = PrefixTree(page_tokens)

    @property
    def num_free(self) -> int:
        """Of nobody, and nothing in them."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """In the prefix tree, pinned or not."""
        return self._tree.num_nodes

    @property
    def num_evictable(self) -> int:
        """In the prefix tree, and pinned by no lease."""
        return self._tree.num_evictable

    @property
    def num_used(self) -> int:
        """Held by leases, each once."""
        return self.num_pages - self.num_free - self.num_evictable

    def open(self, salt: str, tokens: Sequence[int], num_reserved_tokens: int) -> Lease | None:
        """Pages for tokens of which a beginning may be cached; None: there is no room now.

        At least one token is left to compute. `num_reserved_tokens` is the most that the lease may
        come to hold, these included. Raises ValueError: no such lease fits the pool, ever.
        """
        max_pages = -(-num_reserved_tokens // self.page_tokens)
        if not 0 < len(tokens) <= num_reserved_tokens:
            raise ValueError(f"{len(tokens)} tokens in room for {num_reserved_tokens}")
        if max_pages > self.num_pages:
            raise ValueError(f"{max_pages} pages of {self.num_pages}")
        found = self._tree.find(salt, tokens, (len(tokens) - 1) // self.page_tokens)
        num_woken = sum(not node.pins for node in found)
        num_left = self.num_free + self.num_evictable - num_woken - self.num_promised
        num_wanted = max_pages - len(found)
        if num_wanted > num_left:
            return None
        self._tree.pin(found)
        self.num_leases += 1
        self.num_promised += num_wanted
        lease = Lease(self, salt, found, max_pages)
        self.num_hits += lease.num_cached
        self.num_misses += len(tokens) - lease.num_cached
        return lease

    def _grow(self, lease: Lease, num_tokens: int) -> list[int]:
        num_wanted = -(-num_tokens // self.page_tokens)
        if lease.is_closed or num_wanted > lease._max_pages:
            raise ValueError(f"{num_tokens} tokens in {lease._max_pages} pages")
        added = [self._take() for _ in range(num_wanted - len(lease.pages))]
        lease.pages += added
        lease.num_room = num_wanted * self.page_tokens
        return added

    def _take(self) -> int:
        """One page of a promise."""
        self.num_promised -= 1
        if self._free:
            return self._free.pop()
        self.num_evicted += 1
        return self._tree.evict()

    def publish(self, lease: Lease, tokens: Sequence[int]) -> None:
        """The lease's first tokens, whose KV is complete: let others find the pages they fill.

        It goes on where it was left. A page whose equal somebody else has published stays private,
        and so do those after it until `close`: a pin on the other's page was not promised. Raises
        ValueError: not so many tokens have room.
        """
        self._check(lease, tokens)
        nodes, size = lease._nodes, self.page_tokens
        for number in range(len(nodes), len(tokens) // size):
            key = tuple(tokens[number * size : (number + 1) * size])
            parent = nodes[-1] if nodes else self._tree.root(lease.salt)
            if parent.is_lost or key in parent.children:
                return
            node = self._tree.add(parent, key, lease.pages[number])
            self._tree.pin((node,))
            nodes.append(node)

    def _check(self, lease: Lease, tokens: Sequence[int]) -> None:
        if lease.is_closed:
            raise ValueError("the lease is closed")
        if len(tokens) > lease.num_room:
            raise ValueError(f"{len(tokens)} tokens in room for {lease.num_room}")

    def close(self, lease: Lease, tokens: Sequence[int] = (), *, poisoned: bool = False) -> None:
        """Give everything back; pages that `tokens` fill stay cached, as those of `publish` do.

        Poisoned: what this lease wrote is not to be trusted. Nothing of it stays cached, nor what
        others built on it; who uses such pages keeps them until it is closed. Raises ValueError, as
        `publish` does.
        """
        self._check(lease, tokens)
        tree, nodes, now = self._tree, lease._nodes, self._tree.tick()
        num_kept = len(nodes)
        if not poisoned:
            num_kept = self._keep(lease, tokens, now)
        elif num_kept > lease._num_found:
            self._free += tree.lose(nodes[lease._num_found])
        self._free += tree.release(nodes, now)
        self._free += lease.pages[num_kept:]
        self.num_promised -= lease._max_pages - len(lease.pages)
        self.num_leases -= 1
        lease._end()

    def distrust(self, lease: Lease) -> None:
        """Nothing that this lease found stays cached, nor what others built on it.

        Who uses such pages keeps them until it is closed.
        """
        if lease._nodes:
            self._free += self._tree.lose(lease._nodes[0])

    def _keep(self, lease: Lease, tokens: Sequence[int], now: int) -> int:
        """Cache what was not published yet; returns how many of the lease's pages are dealt with.

        Where the tree has an equal page, that one stays and this one is free.
        """
        tree, size = self._tree, self.page_tokens
        first, last = len(lease._nodes), len(tokens) // size
        if first >= last or (first and lease._nodes[-1].is_lost):
            return first
        node = lease._nodes[-1] if first else tree.root(lease.salt)
        for number in range(first, last):
            key = tuple(tokens[number * size : (number + 1) * size])
            child = node.children.get(key)
            if child is None:
                child = tree.add(node, key, lease.pages[number])
            else:
                self._free.append(lease.pages[number])
            child.used_at = now
            node = child
        tree.settle(node)
        return last

    def clear(self) -> None:
        """Forget all that is cached, as where the KV itself is given back.

        Raises ValueError: a lease is open.
        """
        if self.num_leases:
            raise ValueError(f"{self.num_leases} leases are open")
        self._free = list(range(self.num_pages - 1, -1, -1))
        self._tree = PrefixTree(self.page_tokens)
