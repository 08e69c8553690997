"""What is cached of which beginnings: a tree of whole pages, one root per salt.

A node is one page of KV under the tokens that fill it; its place below the root is all that came
before, so equal tokens after another beginning are another node. Tokens are compared, never only
their hashes. Knows neither free pages nor promises: `paging` does.

Whoever uses a node pins it and everything above it. So a node without a pin has none below it, and
all nodes without one can be evicted, leaf after leaf.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

Key = tuple[int, ...]


class Node:
    """One page in the tree, or a root, which has none (-1).

    `used_at` is of the last use that ended, on the tree's own count. `queued`: it has an entry in
    the heap of candidates, which may be out of date. `lost`: cut off, and found by nobody again.
    """

    __slots__ = (
        "children",
        "is_lost",
        "is_queued",
        "key",
        "page",
        "parent",
        "pins",
        "serial",
        "used_at",
    )

    def __init__(self, key: Key, page: int, parent: Node | None, serial: int) -> None:
        self.key = key
        self.page = page
        self.parent = parent
        self.serial = serial
        self.children: dict[Key, Node] = {}
        self.pins = 0
        self.used_at = 0
        self.is_queued = False
        self.is_lost = False


class PrefixTree:
    """All salts' nodes. `num_nodes` are findable, `num_evictable` of them have no pin."""

    def __init__(self, page_tokens: int) -> None:
        self.num_nodes = 0
        self.num_evictable = 0
        self._page_tokens = page_tokens
        self._roots: dict[str, Node] = {}
        self._salts: dict[Node, str] = {}
        # least recently used leaves first: (used_at, serial, node), at most one of each node
        self._candidates: list[tuple[int, int, Node]] = []
        self._num_made = 0
        self._now = 0

    def find(self, salt: str, tokens: Sequence[int], max_pages: int) -> list[Node]:
        """The longest beginning of whole pages that is cached, from the first page on."""
        found: list[Node] = []
        node = self._roots.get(salt)
        size, end = self._page_tokens, 0
        while node is not None and len(found) < max_pages:
            start, end = end, end + size
            node = node.children.get(tuple(tokens[start:end]))
            if node is not None:
                found.append(node)
        return found

    def root(self, salt: str) -> Node:
        """The salt's own, made where it has none: a node must be added to it at once."""
        root = self._roots.get(salt)
        if root is None:
            root = self._roots[salt] = Node((), -1, None, self._number())
            self._salts[root] = salt
        return root

    def _number(self) -> int:
        self._num_made += 1
        return self._num_made

    def add(self, parent: Node, key: Key, page: int) -> Node:
        """A page below a node that has no such child; without a pin."""
        node = parent.children[key] = Node(key, page, parent, self._number())
        self.num_nodes += 1
        self.num_evictable += 1
        return node

    def pin(self, nodes: Iterable[Node]) -> None:
        """By one user more; with a node, all above it."""
        for node in nodes:
            if not node.pins:
                self.num_evictable -= 1
            node.pins += 1

    def tick(self) -> int:
        """The time of one user's end."""
        self._now += 1
        return self._now

    def release(self, nodes: Iterable[Node], now: int) -> list[int]:
        """One user's end: returns the pages of nodes that were lost, and are nobody's now."""
        pages = []
        for node in nodes:
            node.pins -= 1
            node.used_at = now
            if node.pins:
                continue
            if node.is_lost:
                pages.append(node.page)
                continue
            self.num_evictable += 1
            if not node.children:
                self.settle(node)
        return pages

    def settle(self, node: Node) -> None:
        """Make it a candidate for eviction, if it is a leaf without a pin."""
        if not (node.pins or node.children or node.is_queued or node.is_lost):
            node.is_queued = True
            heapq.heappush(self._candidates, (node.used_at, node.serial, node))

    def evict(self) -> int:
        """Forget the least recently used leaf that nobody pins; returns its page.

        Raises IndexError: there is none, `num_evictable` is 0.
        """
        while True:
            used_at, _, node = heapq.heappop(self._candidates)
            node.is_queued = False
            if node.used_at != used_at:
                self.settle(node)  # used since: it stands further behind
            elif not (node.pins or node.children):
                break
        self._unlink(node)
        self.num_nodes -= 1
        self.num_evictable -= 1
        return node.page

    def _unlink(self, node: Node) -> None:
        """Out of its parent, which may be forgotten or become a candidate by that."""
        parent = node.parent
        assert parent is not None  # a root is no page
        del parent.children[node.key]
        if parent.parent is not None:
            self.settle(parent)
        elif not parent.children:
            del self._roots[self._salts.pop(parent)]

    def lose(self, node: Node) -> list[int]:
        """Have nobody find a node or anything below it again; returns the pages nobody pins.

        The others are returned by `release`, each when its last user ends.
        """
        if node.is_lost:
            return []
        self._unlink(node)
        pages = []
        left = [node]
        while left:
            node = left.pop()
            left += node.children.values()
            node.is_lost = True
            self.num_nodes -= 1
            if not node.pins:
                self.num_evictable -= 1
                pages.append(node.page)
        self._candidates = [entry for entry in self._candidates if not entry[2].is_lost]
        heapq.heapify(self._candidates)
        return pages
