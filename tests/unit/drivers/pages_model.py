"""What the pool of pages promises, said naively: a dict of all cached beginnings."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from llmos.drivers.native.paging import Lease, Pages
from llmos.drivers.native.prefix import Node

Place = tuple[str, tuple[int, ...]]
"""A salt and all tokens up to the end of a page: one cached page."""


@dataclasses.dataclass(eq=False)
class Cached:
    """One page that can be found, or is lost and still pinned."""

    page: int
    pins: int = 0
    used_at: int = 0


@dataclasses.dataclass(eq=False)
class Holder:
    """A lease, with what its tokens were, and which cached pages it shares."""

    lease: Lease
    salt: str
    tokens: list[int]
    max_tokens: int
    shared: list[tuple[Place, Cached]]
    num_found: int

    @property
    def private(self) -> list[int]:
        return self.lease.pages[len(self.shared) :]


class Model:
    """Drives a real pool and says what it must do; `written` is the KV itself, by page."""

    def __init__(self, num_pages: int, page_tokens: int) -> None:
        self.pages = Pages(num_pages, page_tokens)
        self.size = page_tokens
        self.cached: dict[Place, Cached] = {}
        self.free = set(range(num_pages))
        self.holders: list[Holder] = []
        self.written: dict[int, Place] = {}
        self.num_evicted = self.num_hits = self.num_asked = self.now = 0

    def places(self, salt: str, tokens: list[int]) -> Iterator[Place]:
        """Of the whole pages that these tokens fill."""
        for end in range(self.size, len(tokens) + 1, self.size):
            yield salt, tuple(tokens[:end])

    def evictable(self) -> int:
        return sum(not c.pins for c in self.cached.values())

    def promised(self) -> int:
        return sum(self.max_pages(h) - len(h.lease.pages) for h in self.holders)

    def max_pages(self, holder: Holder) -> int:
        return -(-holder.max_tokens // self.size)

    def open(self, salt: str, tokens: list[int], max_tokens: int) -> Holder | None:
        """What is found and whether there is room are both as the model says."""
        shared = []
        for place in self.places(salt, tokens[:-1]):
            if place not in self.cached:
                break
            shared.append((place, self.cached[place]))
        wanted = -(-max_tokens // self.size) - len(shared)
        woken = sum(not c.pins for _, c in shared)
        has_room = self.promised() + wanted <= len(self.free) + self.evictable() - woken
        lease = self.pages.open(salt, tokens, max_tokens)
        assert (lease is not None) == has_room
        if lease is None:
            return None
        assert lease.num_cached == len(shared) * self.size < len(tokens)
        assert lease.pages == [c.page for _, c in shared]
        assert [self.written[page] for page in lease.pages] == [place for place, _ in shared]
        self.num_hits += lease.num_cached
        self.num_asked += len(tokens)
        for _, cached in shared:
            cached.pins += 1
        holder = Holder(lease, salt, list(tokens), max_tokens, shared, len(shared))
        self.holders.append(holder)
        return holder

    def grow(self, holder: Holder, tokens: list[int]) -> None:
        """Append tokens and write their KV: a page is known by all tokens up to its end."""
        holder.tokens += tokens
        before = list(holder.lease.pages)
        added = holder.lease.grow(len(holder.tokens))
        assert len(holder.lease.pages) == max(len(before), -(-len(holder.tokens) // self.size))
        assert holder.lease.pages == before + added
        for page in added:
            if self.free:
                self.free.remove(page)
            else:
                assert page == self.evict()
        self.write(holder)

    def write(self, holder: Holder) -> None:
        for number in range(len(holder.shared), len(holder.lease.pages)):
            whole = tuple(holder.tokens[: (number + 1) * self.size])
            self.written[holder.lease.pages[number]] = holder.salt, whole

    def evict(self) -> int:
        """The least recently used beginning that is nobody's, and no other's beginning."""
        leaves = [p for p, c in self.cached.items() if not c.pins and not self.below(p)]
        victim = min(leaves, key=lambda place: self.cached[place].used_at)
        self.num_evicted += 1
        return self.cached.pop(victim).page

    def below(self, place: Place) -> list[Place]:
        salt, tokens = place
        return [
            p
            for p in self.cached
            if p[0] == salt and len(p[1]) > len(tokens) and p[1][: len(tokens)] == tokens
        ]

    def is_lost(self, holder: Holder) -> bool:
        return any(self.cached.get(place) is not cached for place, cached in holder.shared)

    def publish(self, holder: Holder, num_tokens: int) -> None:
        tokens = holder.tokens[:num_tokens]
        self.pages.publish(holder.lease, tokens)
        if self.is_lost(holder):
            return
        for number, place in enumerate(self.places(holder.salt, tokens)):
            if number < len(holder.shared):
                continue
            if place in self.cached:
                return
            self.cached[place] = Cached(holder.lease.pages[number], pins=1)
            holder.shared.append((place, self.cached[place]))

    def close(self, holder: Holder, num_tokens: int) -> None:
        self.now += 1
        pages, kept = list(holder.lease.pages), []
        private = set(holder.private)
        self.pages.close(holder.lease, holder.tokens[:num_tokens])
        if not self.is_lost(holder):
            kept = list(self.places(holder.salt, holder.tokens[:num_tokens]))[len(holder.shared) :]
        for number, place in enumerate(kept, len(holder.shared)):
            if place not in self.cached:
                self.cached[place] = Cached(pages[number])
                private.remove(pages[number])
            self.cached[place].used_at = self.now
        self.free |= private
        self._unpin(holder)

    def poison(self, holder: Holder) -> None:
        self.now += 1
        self.free |= set(holder.private)
        written = holder.shared[holder.num_found :]
        self.pages.close(holder.lease, holder.tokens, poisoned=True)
        for place, cached in written:
            if self.cached.get(place) is cached:
                for lost in (place, *self.below(place)):
                    if not self.cached[lost].pins:
                        self.free.add(self.cached[lost].page)
                    del self.cached[lost]
        self._unpin(holder)

    def _unpin(self, holder: Holder) -> None:
        for place, cached in holder.shared:
            cached.pins -= 1
            cached.used_at = self.now
            if not cached.pins and self.cached.get(place) is not cached:
                self.free.add(cached.page)
        self.holders.remove(holder)
        assert holder.lease.is_closed and holder.lease.pages == []

    def check(self) -> None:
        """Whoever has a page is the only one who has it; counts and promises hold."""
        pages = self.pages
        lost = {
            c.page for h in self.holders for place, c in h.shared if self.cached.get(place) is not c
        }
        owned = Counter(pages._free)
        owned.update(c.page for c in self.cached.values())
        owned.update(page for h in self.holders for page in h.private)
        owned.update(lost)
        assert owned == Counter(range(pages.num_pages))
        assert set(pages._free) == self.free
        found = dict(tree_of(pages))
        assert {place: (node.page, node.pins) for place, node in found.items()} == {
            place: (c.page, c.pins) for place, c in self.cached.items()
        }
        assert set(pages._tree._roots) == {salt for salt, _ in self.cached}
        assert pages.num_cached == len(self.cached)
        assert pages.num_evictable == self.evictable()
        assert pages.num_free == len(self.free)
        assert pages.num_promised == self.promised() <= pages.num_free + pages.num_evictable
        assert pages.num_used == pages.num_pages - len(self.free) - self.evictable()
        assert pages.num_leases == len(self.holders)
        assert (pages.num_hits, pages.num_misses) == (self.num_hits, self.num_asked - self.num_hits)
        assert pages.num_evicted == self.num_evicted
        for holder in self.holders:
            assert [c.page for _, c in holder.shared] == holder.lease.pages[: len(holder.shared)]
            for number, page in enumerate(holder.lease.pages):
                end = (number + 1) * self.size
                assert self.written[page] == (holder.salt, tuple(holder.tokens[:end]))


def tree_of(pages: Pages) -> Iterator[tuple[Place, Node]]:
    """Every page of the tree with its place."""
    left = [(salt, (), root) for salt, root in pages._tree._roots.items()]
    while left:
        salt, before, parent = left.pop()
        for key, node in parent.children.items():
            assert node.parent is parent and node.key == key and not node.is_lost
            assert len(key) == pages.page_tokens
            left.append((salt, before + key, node))
            yield (salt, before + key), node
