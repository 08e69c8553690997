"""Who gives up a place in a full queue for a higher class, and who does not."""

from __future__ import annotations

from llmos.abi.events import Failed
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.policies import priority
from llmos.kernel.core.shed import MOST_SHED
from tests.unit.kernel.core_world import GIB, World, model, of

LOW, MIDDLE, HIGH = sorted(ServiceClass)
ONE = model(slots=1)


def full(num: int, kind: ServiceClass = LOW, **limits: int) -> World:
    """One row with an interactive request, and so many that wait."""
    world = World(priority.make, **limits)
    world.step(ev.ModelWanted(ONE, pin=False), after_ns=10**9)
    world.up("rep_1", 1)
    world.arrive("runs", ONE, HIGH)
    for i in range(num):
        world.arrive(f"w{i}", ONE, kind)
    return world


def ended(decisions: list[do.Decision]) -> list[str]:
    return [close.request_id for close in of(do.Close, decisions)]


def test_a_higher_class_takes_the_place_of_the_newest_of_the_lowest() -> None:
    world = full(8, max_waiting_per_model=10)
    world.arrive("m0", ONE, MIDDLE)
    world.arrive("m1", ONE, MIDDLE)  # 95 % of ten are ten
    assert isinstance(world.arrive("w8", ONE, LOW)[0], do.Refuse)
    world.now_ns += 3 * 10**9
    decisions = world.arrive("h0", ONE, HIGH)
    assert isinstance(decisions[0], do.Accept)
    assert ended(decisions) == ["w7"]
    (close,) = of(do.Close, decisions)
    assert isinstance(close.event, Failed)
    error = close.event.error
    assert (error.code, error.retryable) == ("queue_full", True)
    assert error.message == "a request of class interactive took its place in the full queue of m:1"
    assert error.details["reason"] == "shed for class interactive"
    assert error.details["waited_s"] == 3.0
    assert error.retry_after_s == round(error.details["eta_s"], 1) > 1
    assert error.details["position"] == 12  # 3 of the higher classes, 8 of its own
    assert ended(world.arrive("m2", ONE, MIDDLE)) == ["w6"]
    assert len(world.state.queue("mdl_m")) == 10


def test_equals_and_higher_ones_keep_their_places() -> None:
    world = full(10, HIGH, max_waiting_per_model=10)
    assert isinstance(world.arrive("h", ONE, HIGH)[0], do.Refuse)
    assert isinstance(world.arrive("m", ONE, MIDDLE)[0], do.Refuse)
    world = full(10, MIDDLE, max_waiting_per_model=10)
    assert isinstance(world.arrive("m", ONE, MIDDLE)[0], do.Refuse)


def test_the_lowest_class_keeps_a_hundredth() -> None:
    world = full(160, max_waiting_per_model=200)
    num_shed = [len(ended(world.arrive(f"h{i}", ONE, HIGH))) for i in range(200)]
    assert num_shed == [0] * 40 + [1] * 158 + [0] * 2  # two of 200 stay, and two find no place
    assert {"w0", "w1"} < world.state.requests.keys()
    assert "w2" not in world.state.requests


def test_who_has_begun_is_not_shed() -> None:
    world = World(priority.make, max_waiting_per_model=2)
    world.step(ev.ModelWanted(ONE, pin=False))
    world.up("rep_1", 1)
    world.arrive("begun", ONE, LOW)
    world.arrive("h0", ONE, HIGH)  # parks it
    world.arrive("w0", ONE, LOW)
    assert isinstance(world.arrive("h1", ONE, HIGH)[0], do.Refuse)  # the last of its class stays
    assert {"begun", "w0"} < world.state.requests.keys()


def test_as_many_are_shed_as_its_tokens_need() -> None:
    world = full(4, max_waiting_tokens=1000, max_waiting_per_model=100)  # 138 each, of 800
    assert ended(world.arrive("h0", ONE, HIGH, prompt=872 - 138 - 138)) == ["w3", "w2"]
    backlog = world.state.backlogs["mdl_m"]
    assert backlog.tokens == 1000
    assert isinstance(world.arrive("h1", ONE, HIGH, prompt=139)[0], do.Refuse)
    assert backlog.tokens == 1000, "nobody is shed in vain"
    assert ended(world.arrive("h2", ONE, HIGH, prompt=10)) == ["w1"]
    assert isinstance(world.arrive("h3", ONE, HIGH, prompt=10)[0], do.Refuse)  # the last one stays


def test_one_newcomer_costs_a_bounded_number() -> None:
    most = 138 * 100 * 10 // 8
    for num, is_taken in ((MOST_SHED, True), (MOST_SHED + 1, False)):
        world = full(100, max_waiting_tokens=most)
        free = most - world.state.backlogs["mdl_m"].tokens
        decisions = world.arrive("h", ONE, HIGH, prompt=num * 138 + free - 128)
        assert isinstance(decisions[0], do.Accept if is_taken else do.Refuse)
        assert len(ended(decisions)) == (num if is_taken else 0)


def test_of_all_lower_classes_together_too() -> None:
    most = 138 * 120 * 10 // 8
    world = full(90, max_waiting_tokens=most)
    for i in range(20):
        world.arrive(f"m{i}", ONE, MIDDLE)
    free = most - world.state.backlogs["mdl_m"].tokens
    wish = {"prompt": (MOST_SHED + 1) * 138 + free - 128}
    assert isinstance(world.arrive("h", ONE, HIGH, **wish)[0], do.Refuse)


def test_each_bound_has_a_part_for_each_class() -> None:
    for bound, most, num in (("max_waiting", 10, 8), ("max_waiting_tokens", 1000, 5)):
        world = full(num, **{bound: most})
        assert len(world.state.queue("mdl_m")) == num
        assert isinstance(world.arrive("more", ONE, LOW)[0], do.Refuse)


def test_a_queue_of_all_models_is_made_room_in_wherever_there_is() -> None:
    world = full(2, max_waiting=5, memory_budget_bytes=4 * GIB)
    other = model("o", slots=1)
    world.step(ev.ModelWanted(other, pin=False))
    world.up("rep_2", 1)
    world.arrive("runs too", other, HIGH)
    world.arrive("o0", other, LOW)
    world.arrive("o1", other, LOW)
    world.arrive("m0", ONE, MIDDLE)
    assert ended(world.arrive("h0", ONE, HIGH)) == ["o1"]
    assert ended(world.arrive("h1", ONE, HIGH)) == ["w1"]  # the last of the other model stays
    assert isinstance(world.arrive("h2", ONE, HIGH)[0], do.Refuse)  # one stays of each


def test_a_reniced_request_is_shed_with_its_new_class() -> None:
    world = full(2, max_waiting_per_model=3)
    world.arrive("m0", ONE, MIDDLE)
    world.step(ev.Reniced("m0", service_class=LOW))
    assert ended(world.arrive("h0", ONE, HIGH)) == ["m0"]
