"""The pool of pages: what is found, what is promised, what is forgotten first."""

from __future__ import annotations

import random

import pytest

from llmos.drivers.native.paging import Lease, Pages
from tests.unit.drivers.pages_model import Model

SIZE = 4


def opened(pages: Pages, tokens: list[int], more: int = 0, salt: str = "t") -> Lease:
    lease = pages.open(salt, tokens, len(tokens) + more)
    assert lease is not None
    lease.grow(len(tokens))
    return lease


def cache(pages: Pages, tokens: list[int], salt: str = "t") -> None:
    pages.close(opened(pages, tokens, salt=salt), tokens)


def found(pages: Pages, tokens: list[int], salt: str = "t") -> int:
    lease = pages.open(salt, tokens, len(tokens))
    assert lease is not None
    pages.close(lease)
    return lease.num_cached


def test_a_second_turn_finds_the_whole_pages_of_the_first() -> None:
    pages = Pages(8, SIZE)
    first = opened(pages, [1, 2, 3, 4, 5], more=5)
    assert (first.num_cached, first.pages, first.num_room) == (0, [0, 1], 8)
    assert first.grow(8) == [] and first.grow(9) == [2]
    pages.close(first, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second = opened(pages, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert (second.num_cached, second.pages[:2]) == (8, [0, 1])
    assert (pages.num_hits, pages.num_misses) == (8, 5 + 2)


def test_a_token_is_left_to_compute() -> None:
    pages = Pages(8, SIZE)
    cache(pages, list(range(8)))
    assert found(pages, list(range(8))) == 4
    assert found(pages, list(range(9))) == 8


def test_only_equal_beginnings_are_found() -> None:
    pages = Pages(16, SIZE)
    cache(pages, [1, 2, 3, 4, 5, 6, 7, 8])
    assert found(pages, [1, 2, 3, 0, 5, 6, 7, 8, 9]) == 0
    assert found(pages, [1, 2, 3, 4, 5, 6, 7, 0, 9]) == 4
    assert found(pages, [5, 6, 7, 8, 9]) == 0


def test_keys_of_equal_hash_are_not_confused() -> None:
    assert hash(-1) == hash(-2)
    pages = Pages(8, 2)
    cache(pages, [-1, -1, 3])
    assert found(pages, [-2, -2, 3]) == 0
    assert found(pages, [-1, -1, 3]) == 2


def test_salts_do_not_see_each_other() -> None:
    pages = Pages(8, SIZE)
    cache(pages, list(range(8)), salt="a")
    assert found(pages, list(range(9)), salt="b") == 0
    assert found(pages, list(range(9)), salt="") == 0
    assert found(pages, list(range(9)), salt="a") == 8


def test_what_is_published_is_shared_while_its_writer_runs() -> None:
    pages = Pages(8, SIZE)
    writer = opened(pages, list(range(10)))
    pages.publish(writer, list(range(4)))
    reader = opened(pages, list(range(9)))
    assert (reader.num_cached, reader.pages[0]) == (4, writer.pages[0])
    pages.publish(writer, list(range(10)))
    assert pages.num_cached == 2 and pages.num_evictable == 0
    pages.close(writer)
    assert pages.num_evictable == 1  # the reader has the first one still
    pages.close(reader)
    assert (pages.num_evictable, pages.num_free) == (2, 6)


def test_of_two_writers_the_first_is_found_and_the_second_keeps_its_own() -> None:
    pages = Pages(8, SIZE)
    one, two = opened(pages, list(range(9))), opened(pages, list(range(9)))
    own = list(two.pages)
    pages.publish(one, list(range(9)))
    pages.publish(two, list(range(9)))
    assert two.pages == own and not set(own) & set(one.pages)
    assert pages.num_cached == 2
    pages.close(two, list(range(9)))
    assert pages.num_free == 8 - 3  # all of the second's, and none of the first's
    pages.close(one)
    assert (pages.num_cached, pages.num_free) == (2, 6)


def test_what_the_second_of_two_writers_said_is_found_after_its_end() -> None:
    pages = Pages(8, SIZE)
    one, two = opened(pages, [1] * 5, more=4), opened(pages, [1] * 5, more=4)
    pages.publish(one, [1] * 5)
    two.grow(9)
    pages.close(two, [1, 1, 1, 1, 1, 7, 7, 7, 7])
    assert found(pages, [1, 1, 1, 1, 1, 7, 7, 7, 7]) == 8
    pages.close(one)


def test_no_promise_is_given_that_could_not_be_kept() -> None:
    pages = Pages(4, SIZE)
    lease = pages.open("t", [1], 12)
    assert lease is not None and pages.num_promised == 3
    assert pages.open("t", [2], 8) is None
    assert (pages.num_promised, pages.num_leases, pages.num_misses) == (3, 1, 1)
    other = opened(pages, [2, 3, 4])
    assert lease.grow(12) == [1, 2, 3]
    pages.close(other)
    assert pages.open("t", [2], 8) is None
    pages.close(lease)
    assert pages.num_promised == 0 and pages.open("t", [2], 16) is not None


def test_what_is_found_is_not_promised_twice() -> None:
    """The found page was room for others too, as long as nobody had it."""
    pages = Pages(4, SIZE)
    cache(pages, list(range(4)))
    lease = pages.open("t", [9], 12)
    assert lease is not None
    assert pages.open("t", list(range(5)), 8) is None  # one page is found, one more is not there
    pages.close(lease)
    assert pages.open("t", list(range(5)), 16) is not None


@pytest.mark.parametrize(("num_tokens", "num_reserved"), [(0, 4), (5, 4), (1, 0), (1, 17), (1, -1)])
def test_a_lease_that_never_fits_is_refused(num_tokens: int, num_reserved: int) -> None:
    pages = Pages(4, SIZE)
    with pytest.raises(ValueError):
        pages.open("t", [1] * num_tokens, num_reserved)
    assert (pages.num_leases, pages.num_promised, pages.num_misses) == (0, 0, 0)


@pytest.mark.parametrize(("num_pages", "page_tokens"), [(0, 4), (4, 0)])
def test_a_pool_has_pages_and_pages_have_room(num_pages: int, page_tokens: int) -> None:
    with pytest.raises(ValueError):
        Pages(num_pages, page_tokens)


def test_a_lease_gets_no_more_than_it_reserved() -> None:
    pages = Pages(8, SIZE)
    lease = pages.open("t", [1], 5)
    assert lease is not None
    assert len(lease.grow(8)) == 2  # to the end of the page
    with pytest.raises(ValueError):
        lease.grow(9)
    assert (pages.num_promised, pages.num_free) == (0, 6)


def test_an_ended_lease_can_do_nothing() -> None:
    pages = Pages(8, SIZE)
    lease = opened(pages, [1, 2, 3, 4])
    pages.close(lease)
    for again in (
        lambda: pages.close(lease),
        lambda: pages.publish(lease, []),
        lambda: lease.grow(1),
    ):
        with pytest.raises(ValueError):
            again()
    assert (pages.num_free, pages.num_leases, pages.num_promised) == (8, 0, 0)


def test_tokens_without_room_are_not_published() -> None:
    pages = Pages(8, SIZE)
    lease = opened(pages, [1, 2, 3, 4], more=8)
    for publish in (pages.publish, pages.close):
        with pytest.raises(ValueError):
            publish(lease, [1, 2, 3, 4, 5])
    assert pages.num_cached == 0 and not lease.is_closed


def test_the_least_recently_used_leaf_goes_first() -> None:
    pages = Pages(4, SIZE)
    for token in (1, 2, 3):
        cache(pages, [token] * SIZE)
    found(pages, [1] * 5)  # used again
    opened(pages, [9] * 8)  # one free page, and one that was cached
    assert pages.num_evicted == 1
    assert [found(pages, [token] * 5) for token in (1, 3)] == [4, 4]
    lease = pages.open("t", [2] * 4, 4)
    assert lease is not None and lease.num_cached == 0


def test_a_beginning_outlives_what_follows_it() -> None:
    pages = Pages(4, SIZE)
    cache(pages, [1] * 16)
    for left in (12, 8, 4, 0):
        lease = opened(pages, [9] * (16 - left))
        assert pages.num_cached * SIZE == left
        pages.close(lease)
    assert pages._tree._roots == {}


def test_what_a_lease_holds_is_never_evicted() -> None:
    pages = Pages(4, SIZE)
    cache(pages, list(range(8)))
    reader = opened(pages, list(range(9)))
    other = opened(pages, [9] * 4)
    assert pages.open("t", [8], 1) is None
    assert pages.num_evicted == 0 and not set(other.pages) & set(reader.pages)


def test_poison_is_found_by_nobody_again() -> None:
    pages = Pages(8, SIZE)
    cache(pages, [1] * 4)
    writer = opened(pages, [1, 1, 1, 1, 2, 2, 2, 2, 3])
    pages.publish(writer, [1, 1, 1, 1, 2, 2, 2, 2])
    reader = opened(pages, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4])
    pages.publish(reader, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4])
    held = list(reader.pages)
    pages.close(writer, [1, 1, 1, 1, 2, 2, 2, 2, 3], poisoned=True)
    # what was there before stays, and what was built on the poison is poison
    assert found(pages, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 5]) == 4
    assert reader.pages == held and not set(held) & set(pages._free)
    pages.publish(reader, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4])
    pages.close(reader, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4])
    assert (pages.num_cached, pages.num_free, pages.num_evictable) == (1, 7, 1)


def test_poison_goes_at_once_where_nobody_holds_it() -> None:
    pages = Pages(8, SIZE)
    writer = opened(pages, [1] * 9)
    pages.publish(writer, [1] * 9)
    cache(pages, [1] * 8 + [2] * 4)
    assert pages.num_evictable == 1
    pages.close(writer, poisoned=True)
    assert (pages.num_cached, pages.num_free, pages._tree._roots) == (0, 8, {})
    for token in (7, 8):  # all of them can be had, and nothing of it is evicted once more
        cache(pages, [token] * 32)
        assert (pages.num_cached, pages.num_free) == (8, 0)
    assert pages.num_evicted == 8


def test_a_poisoned_reader_leaves_what_it_found() -> None:
    pages = Pages(8, SIZE)
    cache(pages, [1] * 8)
    pages.close(opened(pages, [1] * 12), [1] * 12, poisoned=True)
    assert found(pages, [1] * 12) == 8
    assert pages.num_free == 6


def test_a_reader_that_distrusts_takes_it_along() -> None:
    pages = Pages(8, SIZE)
    cache(pages, [1] * 8 + [2] * 4)
    cache(pages, [3] * 4)
    reader, other = opened(pages, [1] * 12), opened(pages, [1] * 8 + [2] * 5)
    held = list(other.pages)
    pages.distrust(reader)
    pages.distrust(reader)
    assert (found(pages, [1] * 12), pages.num_cached) == (0, 1)
    pages.close(reader, poisoned=True)
    assert other.pages == held and not set(held) & set(pages._free)
    pages.close(other, [1] * 8 + [2] * 4)
    assert (pages.num_cached, pages.num_free, pages.num_evictable) == (1, 7, 1)
    assert len(opened(pages, [5] * 32).pages) == 8
    lone = opened(Pages(2, SIZE), [1] * 4)
    lone._pool.distrust(lone)  # has found nothing
    assert lone.pages


def test_clear_forgets_everything_when_nobody_runs() -> None:
    pages = Pages(8, SIZE)
    cache(pages, [1] * 8)
    lease = opened(pages, [1] * 9)
    with pytest.raises(ValueError):
        pages.clear()
    assert pages.num_cached == 2
    pages.close(lease, [1] * 9)
    pages.clear()
    assert (pages.num_cached, pages.num_evictable, pages.num_free) == (0, 0, 8)
    assert found(pages, [1] * 9) == 0
    assert len(opened(pages, [2] * 32).pages) == 8


def begun(rng: random.Random) -> list[int]:
    """A prompt of which many others share a beginning."""
    pages = [rng.choice([0, 0, 1])] * SIZE * rng.randint(0, 4)
    return pages + [rng.randrange(2)] * rng.randint(1, 9)


def test_five_hundred_leases_under_pressure() -> None:
    rng = random.Random(5)
    model = Model(40, SIZE)
    waiting = [(rng.choice("ab"), begun(rng), rng.randint(0, 9)) for _ in range(500)]
    num_refused = 0
    while waiting or model.holders:
        if waiting and rng.random() < 0.6:
            salt, tokens, more = waiting.pop()
            if holder := model.open(salt, tokens, len(tokens) + more):
                model.grow(holder, [])
                model.publish(holder, rng.randint(0, len(tokens)))
            else:
                num_refused += 1
                waiting.insert(0, (salt, tokens, more))
        if model.holders and rng.random() < 0.5:
            holder = rng.choice(model.holders)
            if len(holder.tokens) < holder.max_tokens:
                model.grow(holder, [rng.randrange(2)])
            elif rng.random() < 0.1:
                model.poison(holder)
            else:
                model.close(holder, len(holder.tokens))
        model.check()
    assert num_refused > 100 and model.num_evicted > 100 and model.num_hits > 1000
    assert model.pages.num_free + model.pages.num_evictable == 40


def test_the_heap_does_not_grow_with_use() -> None:
    pages = Pages(8, SIZE)
    for turn in range(1000):
        cache(pages, [turn % 3] * 9)
    assert len(pages._tree._candidates) <= pages.num_pages


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_eviction_survives_poison(seed: int) -> None:
    rng = random.Random(seed)
    model = Model(48, 1)
    writer = model.open("t", [0], 1)
    assert writer is not None
    model.grow(writer, [])
    model.publish(writer, 1)
    for _ in range(60):
        tokens = [rng.choice([0, 0, 1, 2]), *(rng.randrange(9) for _ in range(rng.randint(0, 2)))]
        if holder := model.open("t", tokens, len(tokens)):
            model.grow(holder, [])
            model.close(holder, len(tokens))
    model.poison(writer)
    model.check()
    everything = model.open("other", [0], 48)
    assert everything is not None
    for _ in range(47):
        model.grow(everything, [0])
        model.check()
