"""The context switch, decision by decision: suspended, held, resumed, outlived, computed again."""

from __future__ import annotations

import dataclasses

import msgspec

from llmos.abi.policy import Tuning
from llmos.abi.principal import ServiceClass
from llmos.abi.suspended import Tier
from llmos.errors import DiskFull, NotFound
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import NS
from llmos.kernel.core.policies import fair
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.request import RequestState
from tests.unit.kernel.core_world import World, model, of

BATCH, INTERACTIVE = ServiceClass.BATCH, ServiceClass.INTERACTIVE
MIB = 1 << 20
FULL = DiskFull("no space").to_info()


def facts(slots: int = 1, *, snapshots: bool = True) -> ModelFacts:
    return dataclasses.replace(model(slots=slots), kv_bytes_per_token=1024, snapshots=snapshots)


def running(*names: str, slots: int = 1, **limits: int) -> World:
    """A world whose one replica runs these, with room for snapshots in memory."""
    world = World(fair.make, Tuning(slice_tokens=10), **({"memory_budget_bytes": 4 << 30} | limits))
    for name in names:
        world.arrive(name, facts(slots), BATCH)
    world.up("rep_1", slots)
    return world


def state_of(world: World, request_id: str) -> RequestState:
    return world.state.requests[request_id].state


def test_an_operator_takes_a_running_request_off_and_lets_it_go_on() -> None:
    world = running("a")
    world.tokens("rep_1", a=5)
    pause, suspend = world.step(ev.RequestHeld("a", "suspended by me"))
    assert pause == do.PauseRow("a", "rep_1", "suspended by me", do.Pause.SUSPENDED)
    assert suspend == do.SuspendRow("a", "rep_1", "suspended by me", Tier.MEMORY)
    assert world.state.snapshot_memory_bytes > 15 * 1024
    (hold,) = world.step(ev.Suspended("a", 40_000))
    assert hold == do.HoldRequest("a", "suspended by me")
    assert world.state.snapshot_memory_bytes == 40_000
    assert world.step(ev.Tick(), after_ns=60 * NS) == []  # nobody runs it
    requeue, dispatch = world.step(ev.RequestReleased("a"))
    assert isinstance(requeue, do.Requeue)
    assert (dispatch.request_id, dispatch.resumes) == ("a", True)
    assert "from its snapshot" in dispatch.reason
    (drop,) = world.tokens("rep_1", a=1)
    assert drop == do.DropSnapshot("a")
    assert world.state.snapshot_memory_bytes == 0
    assert of(do.Close, world.end("a"))
    assert not [o for o in world.state.ledger.owners() if o != "rep_1"]


def test_a_request_that_waits_is_held_without_a_worker() -> None:
    world = running("a")
    world.arrive("b", facts(), BATCH)
    (hold,) = world.step(ev.RequestHeld("b", "by me"))
    assert isinstance(hold, do.HoldRequest)
    assert of(do.HoldRequest, world.step(ev.RequestHeld("b", "again")))
    assert not of(do.Dispatch, world.end("a"))
    dispatch = of(do.Dispatch, world.step(ev.RequestReleased("b")))
    assert [(d.request_id, d.resumes) for d in dispatch] == [("b", False)]


def test_a_held_request_still_has_its_deadline_until_it_began() -> None:
    world = running("a")
    world.arrive("b", facts(), BATCH, deadline_ns=5 * NS)
    world.step(ev.RequestHeld("b", "by me"))
    (close,) = of(do.Close, world.step(ev.Tick(), after_ns=6 * NS))
    assert close.event.error.code == "deadline_exceeded"


def test_a_failed_suspension_leaves_it_where_it_was_and_tells() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "by me"))
    decisions = world.step(ev.SuspendFailed("a", FULL))
    assert of(do.RefuseHold, decisions)[0].error.code == "disk_full"
    assert of(do.UnpauseRow, decisions)[0].request_id == "a"
    assert world.state.snapshot_memory_bytes == 0
    assert of(do.Close, world.end("a"))


def test_a_driver_without_snapshots_is_told_to_forget_and_computes_again() -> None:
    world = World(memory_budget_bytes=4 << 30)
    world.arrive("a", facts(snapshots=False))
    world.up("rep_1", 1)
    (suspend,) = of(do.SuspendRow, world.step(ev.RequestHeld("a", "by me")))
    assert suspend.tier is None
    world.step(ev.Suspended("a", None))
    (dispatch,) = of(do.Dispatch, world.step(ev.RequestReleased("a")))
    assert dispatch.resumes
    assert "computed again" in dispatch.reason


def test_what_cannot_be_read_is_computed_again_in_the_row_it_has() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Suspended("a", 9))
    world.step(ev.RequestReleased("a"))
    drop, dispatch = world.step(ev.SnapshotLost("a", "it is damaged"))
    assert drop == do.DropSnapshot("a")
    assert (dispatch.resumes, dispatch.replica_id) == (True, "rep_1")
    assert "it is damaged" in dispatch.reason
    assert world.step(ev.SnapshotLost("nobody", "it is gone")) == []


def test_a_worker_that_lost_it_over_a_broken_snapshot_cannot_suspend_it() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Suspended("a", 9))
    world.step(ev.RequestReleased("a"))
    world.step(ev.RequestHeld("a", "again"))
    unknown = NotFound("a is not in the batch").to_info()
    decisions = world.step(ev.SuspendFailed("a", unknown))
    assert of(do.HoldRequest, decisions)
    assert world.state.requests["a"].snapshot_bytes is None


def test_a_snapshot_outlives_the_worker_until_a_token_is_made() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Suspended("a", 9))
    world.step(ev.RequestReleased("a"))
    decisions = world.gone("rep_1")
    assert not of(do.Close, decisions)
    assert "outlived" in of(do.Requeue, decisions)[0].reason
    assert of(do.Dispatch, world.up("rep_2", 1))[0].resumes
    world.tokens("rep_2", a=1)
    assert of(do.Close, world.gone("rep_2"))  # now it has moved on


def test_a_snapshot_over_which_workers_die_is_not_tried_for_ever() -> None:
    world = running("a", max_start_failures=99)
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Suspended("a", 9))
    world.step(ev.RequestReleased("a"))
    for number in (1, 2):
        assert not of(do.Close, world.gone(f"rep_{number}"))
        world.step(ev.Tick(), after_ns=60 * NS)
        assert of(do.Dispatch, world.up(f"rep_{number + 1}", 1))
    assert of(do.Close, world.gone("rep_3"))


def test_a_request_that_left_the_worker_in_time_survives_its_death() -> None:
    world = running("a", "b", slots=2)
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Suspended("a", 9))
    assert [d.request_id for d in of(do.Close, world.gone("rep_1"))] == ["b"]


def test_a_request_in_the_middle_of_leaving_dies_with_its_worker() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "by me"))
    assert [d.request_id for d in of(do.Close, world.gone("rep_1"))] == ["a"]
    assert not world.state.ledger.owners().keys() - {"rep_2"}
    assert world.state.snapshot_memory_bytes == 0


def test_a_client_that_leaves_ends_it_wherever_it_is() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Suspended("a", 9))
    assert of(do.Close, world.step(ev.Cancelled("a", "left")))
    world = running("b")
    world.step(ev.RequestHeld("b", "by me"))
    (abort,) = world.step(ev.Cancelled("b", "left"))
    assert isinstance(abort, do.AbortRow)
    assert world.step(ev.Suspended("b", 9)) == []  # its worker deletes the file
    assert of(do.Close, world.abort("b"))
    assert world.state.snapshot_memory_bytes == 0


def test_memory_is_used_while_there_is_some_and_the_disk_then() -> None:
    world = running("a", "b", slots=2, max_snapshot_memory_bytes=300_000)
    assert of(do.SuspendRow, world.step(ev.RequestHeld("a", "x")))[0].tier is Tier.MEMORY
    assert of(do.SuspendRow, world.step(ev.RequestHeld("b", "x")))[0].tier is Tier.DISK


def test_rows_are_given_up_by_suspending_where_nothing_can_be_parked() -> None:
    world = running("low", max_parked=0)
    pause, suspend, dispatch = world.arrive("high", facts(), INTERACTIVE)[1:]
    assert isinstance(pause, do.PauseRow)
    assert isinstance(suspend, do.SuspendRow)
    assert dispatch.request_id == "high"
    world.step(ev.Suspended("low", 9))
    (back,) = of(do.Dispatch, world.end("high"))
    assert (back.request_id, back.resumes) == ("low", True)


def test_an_equal_is_never_suspended_for_a_turn() -> None:
    world = running("a", max_parked=0)
    world.arrive("b", facts(), BATCH)
    assert world.tokens("rep_1", a=100) == []


def test_paused_kv_is_in_the_ledger_and_without_room_it_leaves() -> None:
    world = running("low", memory_budget_bytes=(1 << 30) + MIB)
    assert not of(do.SuspendRow, world.arrive("h1", facts(), INTERACTIVE))
    assert world.state.ledger.holds("kv:low") == 10 * 1024
    world.end("h1")
    assert world.state.ledger.holds("kv:low") == 0
    world = running("low", memory_budget_bytes=(1 << 30) + 5 * 1024)
    assert of(do.SuspendRow, world.arrive("h1", facts(), INTERACTIVE))[0].tier is Tier.DISK


def test_a_higher_class_takes_a_row_three_times_at_most() -> None:
    world = running("low", max_preemptions=3)
    for number in range(3):
        assert of(do.PauseRow, world.arrive(f"h{number}", facts(), INTERACTIVE))
        world.end(f"h{number}")
    assert not of(do.PauseRow, world.arrive("h3", facts(), INTERACTIVE))
    assert of(do.Dispatch, world.end("low"))[0].request_id == "h3"


def test_who_gave_way_least_often_gives_way_next() -> None:
    world = running("a", "b", slots=2)
    first = of(do.PauseRow, world.arrive("h0", facts(2), INTERACTIVE))[0].request_id
    world.end("h0")
    second = of(do.PauseRow, world.arrive("h1", facts(2), INTERACTIVE))[0].request_id
    assert {first, second} == {"a", "b"}


def test_turns_among_equals_are_not_counted() -> None:
    world = running("a", max_preemptions=1)
    world.arrive("b", facts(), BATCH)
    kinds = []
    for name in ("a", "b", "a", "b"):
        world.now_ns += NS
        kinds += [d.kind for d in of(do.PauseRow, world.tokens("rep_1", **{name: 20}))]
    assert set(kinds) == {do.Pause.TURN}
    assert all(r.num_preempted == 0 for r in world.state.requests.values())


def test_who_was_preempted_is_first_in_its_class() -> None:
    world = running("old")
    world.arrive("older", facts(), BATCH, owner="other/one")
    world.arrive("high", facts(), INTERACTIVE)
    world.arrive("new", facts(), BATCH, owner="third/one", nice=-20)
    assert of(do.UnpauseRow, world.end("high"))[0].request_id == "old"


def test_a_stalled_reader_without_room_for_its_kv_is_suspended() -> None:
    world = running("a", memory_budget_bytes=(1 << 30) + 1024)
    assert of(do.SuspendRow, world.step(ev.ReaderStalled("a")))
    world.step(ev.Suspended("a", 9))
    assert not of(do.Dispatch, world.step(ev.Tick(), after_ns=NS))
    assert of(do.Dispatch, world.step(ev.ReaderResumed("a")))[0].resumes


def test_a_stalled_reader_is_ended_also_off_its_worker() -> None:
    world = running("a", memory_budget_bytes=(1 << 30) + 1024)
    world.step(ev.ReaderStalled("a"))
    world.step(ev.Suspended("a", 9))
    (close,) = world.step(ev.Tick(), after_ns=11 * NS)
    assert close.event.error.code == "reader_stalled"


def test_a_stopping_server_puts_away_what_outlives_it() -> None:
    world = World(memory_budget_bytes=4 << 30)
    arrived = {}
    for name, survives in (("kept", True), ("lost", False)):
        world.arrive(name, facts(2))
        arrived[name] = world.state.requests[name]
        arrived[name].survives = survives
    world.up("rep_1")
    suspends = of(do.SuspendRow, world.step(ev.Draining()))
    assert [(d.request_id, d.tier) for d in suspends] == [("kept", Tier.DISK)]
    world.step(ev.Suspended("kept", 9))
    assert [d.request_id for d in of(do.Close, world.step(ev.Closing()))] == ["lost"]


def test_what_an_earlier_server_kept_goes_on_where_it_was() -> None:
    donor = World()
    donor.arrive("a", facts())
    waiting = msgspec.structs.replace(donor.state.requests["a"].waiting, ready_ns=0)
    world = World()
    arrived = ev.Arrived(waiting, facts(), survives=True)
    decisions = world.step(ev.Restored(arrived, num_tokens=7, is_held=False, snapshot_bytes=9))
    assert [type(d) for d in decisions] == [do.StartReplica]
    assert of(do.Dispatch, world.up("rep_1", 1))[0].resumes
    world = World()
    assert world.step(ev.Restored(arrived, 7, is_held=True, snapshot_bytes=None)) == []
    assert state_of(world, "a") is RequestState.SUSPENDED
    world.step(ev.RequestReleased("a"))
    assert "computed again" in of(do.Dispatch, world.up("rep_1", 1))[0].reason


def test_one_that_is_forgotten_while_it_is_ended_ends() -> None:
    world = World(memory_budget_bytes=4 << 30)
    world.arrive("a", facts(snapshots=False))
    world.up("rep_1", 1)
    world.step(ev.RequestHeld("a", "by me"))
    world.step(ev.Cancelled("a", "left"))
    (close,) = of(do.Close, world.step(ev.Suspended("a", None)))
    assert close.event.reason == "left"


def test_holding_twice_is_answered_twice() -> None:
    world = running("a")
    world.step(ev.RequestHeld("a", "the server stops"))
    assert world.step(ev.RequestHeld("a", "by me")) == []
    assert of(do.HoldRequest, world.step(ev.Suspended("a", 9)))
    assert of(do.HoldRequest, world.step(ev.RequestHeld("a", "by me")))
