"""What a newcomer is told of its wait, figure by figure. A cost model that has learned nothing says
2 ms for any prompt and 1 ms for each of its tokens, 20 ms for a token of an answer, 1 ms more for
each other row, and 128 tokens an answer.
"""

from __future__ import annotations

from llmos.abi.events import Finished, FinishReason
from llmos.abi.inference import Usage
from llmos.abi.policy import MakePolicy, Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.policies import fair, fifo, priority, round_robin
from tests.unit.kernel.core_world import GIB, World, model, of

MS = 1_000_000
NS = 1000 * MS
LOW, MIDDLE, HIGH = sorted(ServiceClass)
ALONE_NS = (2 + 10 + 127 * 20) * MS
"""Of a request of `core_world`: 10 tokens of prompt."""
BESIDE_NS = ALONE_NS + 127 * MS
"""The same on the second of two rows."""


def busy(make: MakePolicy = priority.make, slots: int = 1, **limits: int) -> World:
    """Every row with a batch request of one principal, since 100 ms."""
    world = World(make, Tuning(slice_tokens=10), **limits)
    world.step(ev.ModelWanted(model(slots=slots), pin=False), after_ns=NS)
    world.up("rep_1", slots)
    for i in range(slots):
        world.arrive(f"run{i}", model(slots=slots), LOW, owner="runs/p")
    world.now_ns += 100 * MS
    return world


def told(
    world: World, name: str, kind: ServiceClass = LOW, owner: str = "t/p", slots: int = 1
) -> do.Accept:
    (accept,) = of(do.Accept, world.arrive(name, model(slots=slots), kind, owner=owner))
    return accept


def near(wait_ns: float, right_ns: float) -> bool:
    return abs(wait_ns - right_ns) < 1000


def test_who_would_take_a_row_at_once_does_not_wait() -> None:
    for make in (fair.make, priority.make, round_robin.make):
        world = busy(make)
        accept = told(world, "high", HIGH)
        assert accept.wait_ns == 0, make
        assert accept.reason == "queued behind 0, rows taken by 1 batch"
    world = busy()
    decisions = world.arrive("soon", model(slots=1), HIGH, deadline_ns=world.now_ns + NS)
    assert [type(d) for d in decisions] == [do.Accept, do.PauseRow, do.Dispatch]


def test_first_come_first_served_waits_for_everyone() -> None:
    world = busy(fifo.make)
    left_ns = ALONE_NS - 100 * MS
    assert near(told(world, "b", LOW).wait_ns, left_ns)
    high = told(world, "c", HIGH)
    assert near(high.wait_ns, left_ns + BESIDE_NS)
    assert high.reason == "queued behind 1 (1 batch, about 138 tokens), rows taken by 1 batch"
    soon = world.arrive("d", model(slots=1), HIGH, deadline_ns=world.now_ns + NS)
    assert soon[0].error.code == "deadline_exceeded"
    assert soon[0].error.details["position"] == 3


def test_a_lower_class_is_not_ahead_and_a_higher_one_is() -> None:
    world = busy(slots=2)
    left_ns = ALONE_NS - 100 * MS
    assert near(told(world, "a", LOW, slots=2).wait_ns, left_ns)
    service_ns = ALONE_NS + 2 * 127 * MS
    second = told(world, "b", LOW, slots=2)
    assert near(second.wait_ns, left_ns + service_ns / 2)
    for name in ("h1", "h2"):
        assert told(world, name, HIGH, slots=2).wait_ns == 0
    third = told(world, "m", MIDDLE, slots=2)  # the rows are with the higher class now
    assert near(third.wait_ns, ALONE_NS + 2 * 127 * MS)
    assert third.reason == "queued behind 0, rows taken by 2 interactive"
    last = told(world, "z", LOW, slots=2)
    assert last.reason.startswith("queued behind 5 (1 default, 4 batch, about ")


def test_equals_that_take_turns_wait_for_a_slice() -> None:
    for make in (fair.make, round_robin.make):
        world = busy(make)
        world.tokens("rep_1", run0=3)
        assert near(told(world, "b").wait_ns, 7 * 20 * MS), make
        second = told(world, "c", owner="t/q")
        assert near(second.wait_ns, (7 + 10) * 20 * MS), make


def test_a_slice_is_waited_for_only_where_there_is_room_to_park() -> None:
    left_ns = ALONE_NS - 100 * MS
    for max_parked, wait_ns in ((0, left_ns), (1, 10 * 20 * MS)):
        world = busy(round_robin.make, max_parked=max_parked)
        assert near(told(world, "b").wait_ns, wait_ns)
    world = busy(round_robin.make, max_parked=2)
    assert near(told(world, "b").wait_ns, 200 * MS)
    assert near(told(world, "c").wait_ns, 400 * MS)
    assert near(told(world, "d").wait_ns, 400 * MS + BESIDE_NS)
    for max_parked, wait_ns in ((0, left_ns), (1, 0.0)):
        world = busy(max_parked=max_parked)
        assert near(told(world, "high", HIGH).wait_ns, wait_ns)


def test_turns_leave_half_of_the_room_to_park() -> None:
    world = busy(round_robin.make, max_parked=2)
    told(world, "a")
    world.tokens("rep_1", run0=10)  # parks it, and that is the half
    assert near(told(world, "b").wait_ns, BESIDE_NS + 118 * 20 * MS)
    world = busy(round_robin.make, max_parked=2)
    told(world, "high", HIGH)
    assert near(told(world, "b").wait_ns, BESIDE_NS + ALONE_NS)


def test_time_without_a_row_is_still_to_run() -> None:
    world = busy()
    told(world, "high", HIGH)
    world.now_ns += 3 * NS
    world.end("high")
    assert near(told(world, "b").wait_ns, ALONE_NS - 100 * MS)


def test_who_runs_on_what_its_class_has_earned_keeps_its_slice() -> None:
    policy = fair.make(Tuning(slice_tokens=10, lowest_share=1.0))
    world = World(lambda _: policy, Tuning())
    world.step(ev.ModelWanted(model(slots=1), pin=False), after_ns=NS)
    world.up("rep_1", 1)
    told(world, "high", HIGH)
    told(world, "low", LOW)
    world.tokens("rep_1", high=10)
    assert list(world.state.replicas["rep_1"].running) == ["low"]
    again = told(world, "again", HIGH)
    assert again.reason.startswith("queued behind 1 (1 interactive")
    assert near(again.wait_ns, 200 * MS + 10 * 20 * MS)


def test_under_fair_shares_nobody_waits_behind_a_flood() -> None:
    world = busy(fair.make)
    for i in range(9):
        told(world, f"f{i}", owner="flood/p")

    def num_ahead(owner: str) -> int:
        world.num_arrivals += 1
        return int(told(world, f"n{world.num_arrivals}", owner=owner).reason.split()[2])

    sixth = told(world, "n", owner="flood/q")
    assert sixth.reason.startswith("queued behind 1 (1 batch, about 138 tokens)")
    world.step(ev.Cancelled("n", "left"))
    assert num_ahead("flood/p") == 9
    assert num_ahead("other/p") == 1  # one of the flood, that came first
    assert num_ahead("other/p") == 3  # its own one, and two of the flood
    assert num_ahead("other/q") == 3  # one of its tenant, and two of the flood
    assert num_ahead("other/q") == 7  # 3 of its tenant, and 4 of the flood's 10
    assert num_ahead("third/p") == 2
    assert num_ahead("flood/p") == 15  # all that there are, whatever the shares


def test_parked_requests_count_for_what_is_left_of_them() -> None:
    world = busy()
    world.tokens("rep_1", run0=1)
    world.tokens("rep_1", run0=7)
    told(world, "high", HIGH)
    backlog = world.state.backlogs["mdl_m"]
    assert backlog.tokens == 120
    assert backlog.of_class[LOW].service_ns == 120 * 20 * MS
    world.end("high")
    assert (backlog.tokens, backlog.of_class[LOW].service_ns) == (0, 0.0)
    world.tokens("rep_1", run0=1000)
    told(world, "high2", HIGH)
    assert backlog.tokens == 1
    world.end("high2")
    assert backlog.tokens == 0


def test_of_a_prompt_that_was_not_read_all_time_is_left() -> None:
    world = busy()
    told(world, "high", HIGH)
    assert world.state.backlogs["mdl_m"].of_class[LOW].service_ns == ALONE_NS
    assert world.state.backlogs["mdl_m"].tokens == 128


def test_the_newcomer_itself_counts_against_the_bound_on_tokens() -> None:
    world = busy(max_waiting_tokens=1000)
    kinds = {"prompt": 1000 - 128, "max_tokens": 0}
    assert of(do.Accept, world.arrive("a", model(slots=1), HIGH, **kinds))  # runs at once
    (refuse,) = world.arrive("b", model(slots=1), HIGH, **kinds)
    assert refuse.error.code == "queue_full"
    assert refuse.error.details["eta_s"] > 0
    (refuse,) = world.arrive("c", model(slots=1), HIGH, prompt=1001 - 128)
    assert (refuse.error.code, refuse.error.retryable) == ("payload_too_large", False)
    assert refuse.error.details["eta_s"] is None
    assert of(do.Accept, world.arrive("d", model(slots=1), HIGH, prompt=1000 - 128 - 138))


def test_who_need_not_wait_is_not_kept_out_by_those_who_do() -> None:
    world = busy(max_waiting=1, max_parked=0)
    told(world, "waits")
    (refuse,) = world.arrive("more", model(slots=1), HIGH)
    assert refuse.error.code == "queue_full"
    world.step(ev.ModelWanted(model("o", slots=1), pin=False))
    world.up("rep_2", 1)
    assert of(do.Dispatch, world.arrive("at once", model("o", slots=1)))


def test_a_model_that_never_fits_has_no_time_to_wait_for() -> None:
    (refuse,) = World().arrive("r", model(size=3 * GIB))
    assert refuse.error.details["eta_s"] is None
    assert refuse.error.details["position"] == 1
    world = World()
    world.step(ev.Draining())
    (refuse,) = world.arrive("r", model())
    assert refuse.error.details["eta_s"] is None


def test_a_cold_model_is_waited_for_as_long_as_it_loads() -> None:
    world = World(memory_budget_bytes=8 * GIB)
    world.now_ns = 5 * NS
    first = told(world, "a", slots=2)
    assert first.wait_ns == GIB  # a byte a nanosecond, until one was seen
    assert first.reason == "queued behind 0, no replica is loaded"
    world.now_ns += 300 * MS
    assert near(told(world, "b", slots=2).wait_ns, GIB - 300 * MS + 64 * 21 * MS / 2)
    world.now_ns += 3700 * MS
    world.up("rep_1")
    twice = model("twice", 2 * GIB)
    (accept,) = of(do.Accept, world.arrive("c", twice))
    assert near(accept.wait_ns, 8 * NS)  # the same per byte
    for name in ("a", "b"):
        world.end(name)
    world.step(ev.ModelUnwanted("mdl_m"))
    world.gone("rep_1", None)
    assert told(world, "d", slots=2).wait_ns == 4 * NS


def test_a_time_to_load_that_is_only_guessed_refuses_nobody() -> None:
    world, facts = World(), model(slots=1)
    assert of(do.Accept, world.arrive("a", facts, deadline_ns=world.now_ns + NS // 2))
    world.up("rep_1", 1, GIB)
    world.end("a")
    world.now_ns += 10 * NS
    world.step(ev.ModelUnwanted("mdl_m"))
    world.gone("rep_1", None)
    world.state.loads.learn(facts, 9 * NS)  # twice now, of 0 s and 9 s
    (refuse,) = world.arrive("b", facts, deadline_ns=world.now_ns + 4 * NS)
    assert refuse.error.details["wait_s"] == 4.5
    assert of(do.Accept, world.arrive("c", facts, deadline_ns=world.now_ns + 5 * NS))


def test_a_model_in_its_back_off_is_waited_for_that_much_longer() -> None:
    world = World(min_backoff_ns=NS, max_start_failures=9)
    world.arrive("a", model())
    world.gone("rep_1")
    world.gone("rep_2")
    assert near(told(world, "b", slots=2).wait_ns, GIB + NS + ALONE_NS / 2)


def test_a_row_says_why_it_is_on_this_replica() -> None:
    world = World()
    world.arrive("early", model(slots=1))
    world.now_ns += 5 * MS
    (first,) = of(do.Dispatch, world.up("rep_1", 1))
    assert first.reason == "row 1 of 1 after 5 ms, the replica started for those who waited"
    world.end("early")
    world.now_ns += NS
    (second,) = of(do.Dispatch, world.arrive("late", model(slots=1), LOW))
    assert second.reason == "row 1 of 1 after 0 ms, the one replica of its model"
    world.arrive("high", model(slots=1), HIGH)
    (back,) = of(do.UnpauseRow, world.end("high"))
    assert back.reason == "row 1 of 1 after 0 ms, where its KV is"


def learned(num: int) -> World:
    """One row, and `num` requests of 2 s have ended: 100 ms a token, 20 of them."""
    world = World(priority.make)
    world.step(ev.ModelWanted(model(slots=1), pin=False), after_ns=NS)
    world.up("rep_1", 1)
    for i in range(num):
        world.arrive(f"r{i}", model(slots=1), prompt=1)
        world.now_ns += 100 * MS
        world.tokens("rep_1", **{f"r{i}": 1})
        world.now_ns += 1900 * MS
        end = Finished(f"r{i}", FinishReason.STOP, Usage(1, 20))
        world.step(ev.Ended(f"r{i}", end))
    return world


def test_what_cannot_meet_its_deadline_is_refused_once_enough_is_known() -> None:
    for num, left_ms, code in ((7, 100, None), (8, 100, "deadline_exceeded"), (8, 600, None)):
        world = learned(num)
        due_ns = world.now_ns + left_ms * MS
        answer, *_ = world.arrive("r", model(slots=1), deadline_ns=due_ns, prompt=1)
        assert (answer.error.code if isinstance(answer, do.Refuse) else None) == code
        if isinstance(answer, do.Refuse):
            assert not answer.error.retryable
            assert abs(answer.error.details["service_s"] - 2) < 0.1
            assert answer.error.details["eta_s"] == 0


def test_what_can_no_longer_meet_its_deadline_is_dropped_before_it_runs() -> None:
    world = learned(8)
    world.arrive("runs", model(slots=1), prompt=1)
    due_ns = world.now_ns + 5 * NS
    world.arrive("late", model(slots=1), deadline_ns=due_ns, prompt=1)
    least_ns = int(world.state.requests["late"].prediction.service_ns / 4)
    world.now_ns = due_ns - least_ns
    (close,) = of(do.Close, world.end("runs"))[1:]
    assert close.event.error.code == "deadline_exceeded"
    assert close.event.error.details["waited_s"] == (5 * NS - least_ns) / NS
    assert "and the answer takes about" in close.event.error.message
    assert not of(do.Dispatch, world.log[-2:])


def test_a_deadline_is_looked_at_when_it_can_no_longer_be_met() -> None:
    world = learned(8)
    world.arrive("runs", model(slots=1), prompt=1)
    due_ns = world.now_ns + 5 * NS
    world.arrive("late", model(slots=1), deadline_ns=due_ns, prompt=1)
    begin_by_ns = world.state.requests["late"].begin_by_ns or 0
    assert 400 * MS < due_ns - begin_by_ns < 600 * MS
    world.now_ns = begin_by_ns - 1
    assert not of(do.Close, world.step(ev.Tick()))
    (close,) = of(do.Close, world.step(ev.Tick(), after_ns=100 * MS))
    assert set(close.event.error.details) == {"reason", "waited_s", "service_s"}
    world.arrive("later", model(slots=1), deadline_ns=world.now_ns + 5 * NS, prompt=1)
    (close,) = of(do.Close, world.step(ev.Tick(), after_ns=9 * NS))
    assert close.event.error.message == "the deadline passed while the request waited"


def test_shares_ahead_are_of_those_that_wait_now() -> None:
    policy = fair.make(Tuning())

    def one(name: str, principal: str) -> Waiting:
        return Waiting(name, 1, 0, LOW, 0, "t", principal, 1.0, 10, 10)

    for name, principal in [("p", "p"), ("r", "r"), *((f"q{i}", "q") for i in range(6))]:
        policy.join(one(name, principal))
        policy.push(one(name, principal))
    assert policy.share_ahead(one("n", "p"), LOW) * 8 == 5  # its own, and two of each other
    policy.remove("r")
    assert policy.share_ahead(one("n", "p"), LOW) * 7 == 3
    assert policy.share_ahead(one("n", "s"), LOW) * 7 == 2
    assert policy.share_ahead(one("n", "q"), LOW) == 1
    assert policy.share_ahead(one("n", "q"), HIGH) == 1
