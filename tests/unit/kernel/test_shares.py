"""Shares by service: bounded memory, who is first among equals, and for how long."""

from __future__ import annotations

from llmos.abi.policy import Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.limits import NS
from llmos.kernel.core.policies.fair import FairOrder, make
from llmos.kernel.core.policies.shares import Shares


def test_a_member_that_comes_and_goes_leaves_no_entries_behind() -> None:
    shares = Shares()
    shares.enter("a", 1.0)  # something of it always runs
    for i in range(1000):
        shares.enter("a", 1.0)
        shares.activate("a")
        assert shares.first() == "a"
        shares.deactivate("a")
        shares.charge("a", i)
        shares.exit("a")
    assert len(shares._heap) <= 1


def test_those_who_came_once_are_forgotten() -> None:
    shares = Shares()
    for i in range(1000):
        name = f"m{i}"
        shares.enter(name, 1.0)
        shares.activate(name)
        assert shares.first() == name
        shares.deactivate(name)
        shares.exit(name)
    assert len(shares) <= 1
    assert len(shares._heap) <= 1


def test_equals_are_served_in_the_order_in_which_they_came() -> None:
    shares = Shares()
    shares.enter("x", 1.0)
    shares.activate("x")
    for i in range(10):  # each comes level with x, under a name that sorts before it
        shares.enter(f"a{i}", 1.0)
        shares.activate(f"a{i}")
    assert shares.first() == "x"


def test_a_member_weighs_as_much_as_the_heaviest_of_what_it_has_open() -> None:
    shares = Shares()
    shares.enter("a", 4.0)
    shares.enter("a", 1.0)
    shares.charge("a", 8.0)
    assert shares.counter("a") == 2.0
    shares.exit("a")
    shares.exit("a")
    shares.enter("a", 1.0)
    shares.charge("a", 8.0)
    assert shares.counter("a") == 10.0


def test_nothing_is_left_of_those_who_left() -> None:
    order = FairOrder(Tuning())
    for i in range(100):
        one = Waiting(f"r{i}", i, i, ServiceClass.DEFAULT, 0, f"t{i % 9}", f"p{i % 4}", 1.0, 1, 1)
        order.join(one)
        order.push(one)
        if i % 2:
            order.remove(one.request_id)
        else:
            assert order.pop() == one
        order.leave(one)
    assert not len(order)
    assert not order._queues
    assert not order._num_of_tenant
    assert not order._where
    assert not order._principals


def request(name: str, arrival: int, **changes: int) -> Waiting:
    """Of the one principal there is; it came `arrival` seconds after the start."""
    ready_ns = arrival * NS
    return Waiting(name, arrival, ready_ns, ServiceClass.DEFAULT, 0, "t", "p", 1.0, 1, 1, **changes)


def test_who_was_due_sooner_gets_the_row_after_a_quarter() -> None:
    for slice_tokens, quarter in ((64, 16), (10, 3)):
        policy = make(Tuning(slice_tokens=slice_tokens))
        running, waiting = request("running", 9, ran_ns=2 * NS), request("waiting", 10)
        for one in (running, waiting):
            policy.join(one)
        policy.push(waiting)
        assert policy.yields(running, quarter - 1) is None
        assert "due sooner" in str(policy.yields(running, quarter))
        assert "slice is over" in str(policy.yields(running, slice_tokens))


def test_who_was_due_later_waits_for_the_end_of_the_slice() -> None:
    policy = make(Tuning(slice_tokens=64))
    running, waiting = request("running", 9), request("waiting", 10)
    for one in (running, waiting):
        policy.join(one)
    policy.push(waiting)
    assert policy.yields(running, 63) is None
    assert policy.yields(running, 64) is not None
