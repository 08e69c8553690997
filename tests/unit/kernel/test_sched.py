"""Rows, slices, classes, shares, deadlines: the scheduler decision by decision."""

from __future__ import annotations

import pytest

from llmos.abi.events import Finished, FinishReason
from llmos.abi.inference import Usage
from llmos.abi.policy import MakePolicy, Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import NS
from llmos.kernel.core.policies import fair, fifo, priority, round_robin
from llmos.kernel.core.replica import ModelFacts
from tests.unit.kernel.core_world import World, model, of

INTERACTIVE, BATCH = ServiceClass.INTERACTIVE, ServiceClass.BATCH
TUNING = Tuning(slice_tokens=10)


def ready_world(make: MakePolicy = fair.make, slots: int = 1, **limits: int) -> World:
    world = World(make, TUNING, **limits)
    world.step(ev.ModelWanted(model(slots=slots), pin=False))
    world.up("rep_1", slots)
    return world


def one(slots: int = 1) -> ModelFacts:
    return model(slots=slots)


def running(world: World) -> list[str]:
    return list(world.state.replicas["rep_1"].running)


@pytest.mark.parametrize("make", [fair.make, priority.make, round_robin.make])
def test_a_higher_class_takes_the_row_of_a_lower_one_at_once(make: MakePolicy) -> None:
    world = ready_world(make)
    world.arrive("low", one(), BATCH)
    decisions = world.arrive("high", one(), INTERACTIVE)
    assert [type(d) for d in decisions] == [do.Accept, do.PauseRow, do.Dispatch]
    assert "interactive waits" in of(do.PauseRow, decisions)[0].reason
    (resumed,) = of(do.UnpauseRow, world.end("high"))
    assert resumed.request_id == "low"


def test_fifo_lets_nobody_pass() -> None:
    world = ready_world(fifo.make)
    world.arrive("first", one(), BATCH)
    assert not of(do.PauseRow, world.arrive("second", one(), INTERACTIVE))
    world.tokens("rep_1", first=1000)
    assert running(world) == ["first"]


def test_parked_requests_are_bounded() -> None:
    world = ready_world(slots=2, max_parked=1)
    world.arrive("a", one(2), BATCH)
    world.arrive("b", one(2), BATCH)
    assert of(do.PauseRow, world.arrive("x", one(2), INTERACTIVE))
    assert not of(do.PauseRow, world.arrive("y", one(2), INTERACTIVE))
    assert of(do.Dispatch, world.end("x"))[0].request_id == "y"


@pytest.mark.parametrize("make", [fair.make, round_robin.make])
def test_within_a_class_slices_rotate_after_enough_tokens(make: MakePolicy) -> None:
    world = ready_world(make)
    world.arrive("a", one(), owner="ann")
    world.arrive("b", one(), owner="bob")
    assert not of(do.PauseRow, world.tokens("rep_1", a=9))
    decisions = world.tokens("rep_1", a=1)
    assert [d.request_id for d in of(do.PauseRow, decisions)] == ["a"]
    assert [d.request_id for d in of(do.Dispatch, decisions)] == ["b"]
    back = world.tokens("rep_1", b=40)
    assert [d.request_id for d in of(do.UnpauseRow, back)] == ["a"]


def test_three_take_turns_and_none_is_passed_over() -> None:
    world = ready_world()
    for name in "abc":
        world.arrive(name, one())
    turns = []
    for _ in range(6):
        (name,) = running(world)
        turns.append(name)
        world.now_ns += NS
        world.tokens("rep_1", **{name: 10})
    assert turns == list("abcabc")


def test_who_has_run_lets_those_pass_that_come_meanwhile() -> None:
    world = ready_world()
    world.arrive("long", one())
    world.now_ns += 2 * NS
    world.tokens("rep_1", long=10)
    world.arrive("a", one())
    world.now_ns += NS
    world.arrive("b", one())  # one second after the long one gave way, which had run for two
    world.now_ns += 2 * NS
    world.arrive("late", one())
    assert of(do.Dispatch, world.end("a"))[0].request_id == "b"
    (back,) = of(do.UnpauseRow, world.end("b"))
    assert (back.request_id, back.reason) == ("long", "row 1 of 1 after 3000 ms, where its KV is")


def test_having_run_for_long_counts_as_six_steps_at_most() -> None:
    world = ready_world()
    world.arrive("long", one())
    world.now_ns += 1000 * NS
    world.tokens("rep_1", long=1000)
    world.arrive("a", one())
    for name in ("b", "c"):
        world.now_ns += 2 * NS
        world.arrive(name, one())  # 2 s after the return, and 4 s
    assert of(do.Dispatch, world.end("a"))[0].request_id == "b"
    assert of(do.UnpauseRow, world.end("b"))[0].request_id == "long"


def test_who_was_due_sooner_need_not_wait_for_the_end_of_a_slice() -> None:
    world = ready_world()
    world.arrive("long", one())
    world.now_ns += 5 * NS
    world.tokens("rep_1", long=10)
    world.arrive("a", one())
    assert of(do.UnpauseRow, world.end("a"))  # 3 s before it is due: nobody else waits
    world.arrive("b", one())
    assert not of(do.PauseRow, world.tokens("rep_1", long=2))
    (pause,) = of(do.PauseRow, world.tokens("rep_1", long=1))
    assert "due sooner" in pause.reason
    world.end("b")
    world.now_ns += 4 * NS
    world.arrive("c", one())  # after the long one was due: it keeps its slice
    assert not of(do.PauseRow, world.tokens("rep_1", long=9))
    assert of(do.PauseRow, world.tokens("rep_1", long=1))


def test_what_is_new_keeps_its_first_slice_against_what_comes_later() -> None:
    world = ready_world()
    world.arrive("a", one())
    world.arrive("b", one())
    assert not of(do.PauseRow, world.tokens("rep_1", a=9))


def test_turns_of_round_robin_are_whole_slices() -> None:
    world = ready_world(round_robin.make)
    world.arrive("busy", one())
    world.arrive("urgent", one(), nice=-20)
    assert not of(do.PauseRow, world.tokens("rep_1", busy=9))


def test_a_lone_request_is_never_parked() -> None:
    world = ready_world()
    world.arrive("a", one())
    assert world.tokens("rep_1", a=10_000) == []


def serve(world: World, slots: int, num_steps: int) -> dict[str, int]:
    """Run whatever has rows, ten tokens a step; tokens by the first letter of the id."""
    served: dict[str, int] = {}
    for _ in range(num_steps):
        names = running(world)
        for name in names:
            served[name[0]] = served.get(name[0], 0) + 10
        world.tokens("rep_1", **dict.fromkeys(names, 10))
    return served


def test_a_flood_of_one_tenant_takes_nothing_from_the_others() -> None:
    world = ready_world(slots=2)
    for i in range(40):
        world.arrive(f"f{i}", one(2), owner="flood")
    for name in "abc":
        for i in range(4):
            world.arrive(f"{name}{i}", one(2), owner=name)
    served = serve(world, 2, 400)
    total = sum(served.values())
    assert all(abs(tokens / total - 0.25) < 0.02 for tokens in served.values()), served


def test_weights_are_shares() -> None:
    world = ready_world(slots=2)
    for name, weight in (("a", 1.0), ("b", 2.0), ("c", 4.0)):
        for i in range(4):
            world.arrive(f"{name}{i}", one(2), owner=name, weight=weight)
    served = serve(world, 2, 700)
    assert served["b"] / served["a"] == pytest.approx(2, rel=0.05)
    assert served["c"] / served["a"] == pytest.approx(4, rel=0.05)


def test_a_tenant_with_many_keys_gets_one_share() -> None:
    world = ready_world(slots=2)
    for i in range(8):
        world.arrive(f"m{i}", one(2), owner=f"many/key{i}")
    for i in range(2):
        world.arrive(f"s{i}", one(2), owner="single/key")
    served = serve(world, 2, 400)
    assert served["m"] / served["s"] == pytest.approx(1, rel=0.05)


def test_idling_saves_nothing_up() -> None:
    world = ready_world(slots=2)
    for i in range(4):
        world.arrive(f"a{i}", one(2), owner="a")
    serve(world, 2, 200)
    for i in range(4):
        world.arrive(f"b{i}", one(2), owner="b")  # comes late, and starts level
    served = serve(world, 2, 200)
    assert served["a"] / served["b"] == pytest.approx(1, rel=0.1)


def test_the_lowest_class_keeps_its_share_under_any_load() -> None:
    tuning = Tuning(slice_tokens=10, lowest_share=0.05)
    world = World(fair.make, tuning)
    world.step(ev.ModelWanted(one(), pin=False))
    world.up("rep_1", 1)
    for i in range(3):
        world.arrive(f"i{i}", one(), INTERACTIVE)
    world.arrive("batch", one(), BATCH)
    served = serve(world, 1, 2000)
    share = served["b"] / sum(served.values())
    assert 0.03 < share < 0.15, share


def test_the_nearer_deadline_goes_first_and_a_lost_one_is_told() -> None:
    world = ready_world()
    world.arrive("busy", one())
    world.arrive("later", one(), deadline_ns=100 * NS, max_tokens=1)
    world.arrive("sooner", one(), deadline_ns=50 * NS, max_tokens=1)
    world.arrive("plain", one(), max_tokens=1)
    order = [of(do.Dispatch, world.end(name))[0].request_id for name in ("busy",)]
    assert order == ["later"]  # both are far off: they are due in the order they came
    world.now_ns += 60 * NS
    decisions = world.end("later")
    closed = {d.request_id: d.event.error.code for d in of(do.Close, decisions)[1:]}
    assert closed == {"sooner": "deadline_exceeded"}
    assert of(do.Dispatch, decisions)[0].request_id == "plain"


def test_a_tight_deadline_overtakes_and_an_impossible_one_is_refused_at_once() -> None:
    world = ready_world()
    world.arrive("busy", one())
    world.now_ns += 5 * NS
    world.arrive("waits", one(), max_tokens=1)
    world.arrive("tight", one(), deadline_ns=world.now_ns + NS, max_tokens=1000)
    assert of(do.Dispatch, world.end("busy"))[0].request_id == "tight"
    (refuse,) = world.arrive("never", one(), deadline_ns=world.now_ns + 1)
    assert refuse.error.code == "deadline_exceeded"
    assert refuse.error.details["wait_s"] > 0


def test_nice_shifts_by_a_stated_bound_and_no_more() -> None:
    tuning = Tuning(slice_tokens=10, nice_step_ns=NS)
    world = World(fair.make, tuning)
    world.step(ev.ModelWanted(one(), pin=False))
    world.up("rep_1", 1)
    world.arrive("busy", one())
    world.arrive("nice", one(), nice=19)
    for i in range(60):
        world.now_ns += NS
        world.arrive(f"r{i}", one())
    order, current = [], "busy"
    while not order or order[-1] != "nice":
        current = of(do.Dispatch, world.end(current))[0].request_id
        order.append(current)
    assert len(order) - 1 == 18  # those that came within 19 s


@pytest.mark.parametrize("make", [fair.make, priority.make])
def test_a_deadline_moves_a_request_no_further_ahead_than_nice_may(make: MakePolicy) -> None:
    policy = make(Tuning(nice_step_ns=NS))
    first = Waiting("first", 1, 0, ServiceClass.DEFAULT, 19, "t", "p", 1.0, 10, 10)
    for waiting in (first, *(_hurried(second) for second in range(1, 61))):
        policy.join(waiting)
        policy.push(waiting)
    order = [policy.pop().request_id for _ in range(61)]
    assert order.index("first") == 38  # behind those that came within 39 s less an instant


def _hurried(second: int) -> Waiting:
    """With 1 s until its deadline, and 600 s of predicted work."""
    name, at_ns = f"r{second}", second * NS
    start_by_ns = at_ns + NS - 600 * NS
    return Waiting(
        name, second + 1, at_ns, ServiceClass.DEFAULT, 0, "t", "p", 1.0, 10, 10, start_by_ns
    )


def test_renicing_moves_a_waiting_request() -> None:
    world = ready_world()
    for name in ("busy", "a", "b"):
        world.arrive(name, one())
    world.step(ev.Reniced("b", nice=-5))
    assert of(do.Dispatch, world.end("busy"))[0].request_id == "b"
    world.step(ev.Reniced("nobody", nice=1))


def test_raising_the_class_of_a_waiting_request_preempts() -> None:
    world = ready_world()
    world.arrive("busy", one())
    world.arrive("a", one())
    decisions = world.step(ev.Reniced("a", service_class=INTERACTIVE))
    assert [type(d) for d in decisions] == [do.PauseRow, do.Dispatch]


def test_a_tenants_open_requests_are_bounded() -> None:
    world = ready_world(max_open_per_tenant=2)
    world.arrive("a", one(), owner="t")
    world.arrive("b", one(), owner="t")
    (refuse,) = world.arrive("c", one(), owner="t")
    assert refuse.error.code == "quota_exceeded"
    assert of(do.Accept, world.arrive("d", one(), owner="other"))
    world.end("a")
    assert of(do.Accept, world.arrive("e", one(), owner="t"))


def test_low_classes_are_shed_before_high_ones() -> None:
    world = ready_world(max_waiting_per_model=10)
    world.arrive("busy", one(), INTERACTIVE)
    for i in range(8):
        assert of(do.Accept, world.arrive(f"b{i}", one(), BATCH))
    (refuse,) = world.arrive("b8", one(), BATCH)
    assert refuse.error.code == "queue_full"
    assert refuse.error.message == "8 requests wait for m:1, and class batch may not add 1 more"
    assert refuse.error.details["position"] == 9
    assert of(do.Accept, world.arrive("i0", one(), INTERACTIVE))


def test_the_queue_is_bounded_in_tokens_too() -> None:
    world = ready_world(max_waiting_tokens=1000)
    world.arrive("busy", one())
    assert of(do.Accept, world.arrive("a", one(), prompt=800))  # and 128 of an answer
    (refuse,) = world.arrive("b", one(), prompt=10)
    assert "928 tokens wait" in refuse.error.message


def test_a_refusal_names_the_bound_that_is_exceeded() -> None:
    world = ready_world(max_waiting_per_model=2, max_waiting_tokens=1000)
    world.arrive("busy", one())
    assert of(do.Accept, world.arrive("a", one(), prompt=800))  # one more request may wait
    (refuse,) = world.arrive("b", one(), prompt=10)
    assert "928 tokens wait" in refuse.error.message


def test_a_draining_replica_runs_its_parked_requests_and_nothing_new() -> None:
    world = ready_world()
    world.arrive("low", one(), BATCH)
    world.arrive("high", one(), INTERACTIVE)
    world.step(ev.ModelUnwanted("mdl_m"))
    world.arrive("new", one(), INTERACTIVE)
    decisions = world.end("high")
    assert [d.request_id for d in of(do.UnpauseRow, decisions)] == ["low"]
    assert not of(do.Dispatch, decisions)
    assert of(do.StopReplica, world.end("low"))


def test_a_parked_request_dies_with_its_worker_and_can_be_cancelled() -> None:
    world = ready_world()
    world.arrive("low", one(), BATCH)
    world.arrive("low2", one(), BATCH)
    world.arrive("high", one(), INTERACTIVE)
    (abort,) = world.step(ev.Cancelled("low", "left"))
    assert isinstance(abort, do.AbortRow)
    assert of(do.Close, world.abort("low"))
    decisions = world.gone("rep_1")
    assert {d.request_id for d in of(do.Close, decisions)} == {"high"}
    assert len(world.state.queue("mdl_m")) == 1


def test_a_stalled_reader_gives_its_row_to_someone_who_reads() -> None:
    world = ready_world()
    world.arrive("a", one())
    world.arrive("b", one())
    decisions = world.step(ev.ReaderStalled("a"))
    assert [d.request_id for d in of(do.Dispatch, decisions)] == ["b"]
    assert world.step(ev.ReaderResumed("a")) == []  # it waits for its turn
    assert of(do.UnpauseRow, world.end("b"))[0].request_id == "a"


def test_predictions_follow_what_is_measured() -> None:
    world = ready_world()
    errors = []
    for i in range(40):
        (accept, _) = world.arrive(f"r{i}", one(), prompt=100, max_tokens=20)
        world.now_ns += NS // 10
        world.tokens("rep_1", **{f"r{i}": 1})
        world.now_ns += 19 * NS // 5
        world.tokens("rep_1", **{f"r{i}": 19})
        end = Finished(f"r{i}", FinishReason.STOP, Usage(100, 20))
        (close,) = world.step(ev.Ended(f"r{i}", end))
        errors.append(abs(accept.service_ns - 3.9 * NS) / (3.9 * NS))
        assert "predicted" in close.reason
    assert errors[-1] < 0.05 < errors[0]
    assert world.state.costs["mdl_m"].error.value < 0.5
