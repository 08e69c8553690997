"""Any order of leases, beside a naive model: see `pages_model` for what is checked at each step."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.unit.drivers.pages_model import Holder, Model

few_tokens = st.lists(st.integers(0, 1), max_size=5)
running = precondition(lambda machine: machine.model.holders)
indexes = st.integers(0, 20)


class PagesMachine(RuleBasedStateMachine):
    """Requests of a few salts over few tokens, so that they meet often, in a pool that is full."""

    @initialize(num_pages=st.integers(1, 12), page_tokens=st.integers(1, 3))
    def begin(self, num_pages: int, page_tokens: int) -> None:
        self.model = Model(num_pages, page_tokens)

    def holder(self, index: int) -> Holder:
        return self.model.holders[index % len(self.model.holders)]

    @rule(
        salt=st.sampled_from(["a", "b"]),
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        more=st.integers(0, 8),
        computes=st.booleans(),
    )
    def open(self, salt: str, tokens: list[int], more: int, computes: bool) -> None:
        room = self.model.pages.num_pages * self.model.size
        tokens = tokens[:room]
        holder = self.model.open(salt, tokens, min(room, len(tokens) + more))
        if holder is not None and computes:
            self.model.grow(holder, [])

    @running
    @rule(index=indexes, tokens=few_tokens)
    def grow(self, index: int, tokens: list[int]) -> None:
        holder = self.holder(index)
        self.model.grow(holder, tokens[: holder.max_tokens - len(holder.tokens)])

    @running
    @rule(index=indexes, num_tokens=st.integers(0, 20))
    def publish(self, index: int, num_tokens: int) -> None:
        holder = self.holder(index)
        self.model.publish(holder, min(num_tokens, self.num_computed(holder)))

    @running
    @rule(index=indexes, num_tokens=st.sampled_from([0, 3, 7, 20, 20]))
    def close(self, index: int, num_tokens: int) -> None:
        holder = self.holder(index)
        self.model.close(holder, min(num_tokens, self.num_computed(holder)))

    @running
    @rule(index=indexes)
    def poison(self, index: int) -> None:
        holder = self.holder(index)
        del holder.tokens[self.num_computed(holder) :]
        self.model.poison(holder)

    @precondition(lambda machine: not machine.model.holders)
    @rule()
    def clear(self) -> None:
        self.model.pages.clear()
        self.model.cached.clear()
        self.model.free = set(range(self.model.pages.num_pages))

    def num_computed(self, holder: Holder) -> int:
        return min(len(holder.tokens), holder.lease.num_room)

    @invariant()
    def holds(self) -> None:
        self.model.check()

    def teardown(self) -> None:
        """Nothing leaks, and all that was promised can be had."""
        if not hasattr(self, "model"):
            return
        for holder in list(self.model.holders):
            left = holder.max_tokens - len(holder.tokens)
            self.model.grow(holder, [1] * left)
            self.model.check()
        for holder in list(self.model.holders):
            self.model.close(holder, len(holder.tokens))
        self.model.check()
        pages = self.model.pages
        assert pages.num_free + pages.num_evictable == pages.num_pages
        whole = self.model.open("c", [1], pages.num_pages * self.model.size)
        assert whole is not None
        self.model.grow(whole, [1] * (whole.max_tokens - 1))
        assert pages.num_cached == 0
        self.model.close(whole, 0)
        self.model.check()


TestPages = PagesMachine.TestCase
TestPages.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
