"""What the simulator found in the context switch and in the making of room, as small as it gets."""

from __future__ import annotations

import pytest

from llmos.abi.events import Aborted
from llmos.abi.policy import Tuning
from llmos.abi.principal import ServiceClass
from llmos.errors import DiskFull
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import NS
from llmos.kernel.core.suspend import MAX_RESUMES
from llmos.kernel.sim import small
from tests.unit.kernel.core_world import GIB, World, model, of

MS = NS // 1000
FULL = DiskFull("full").to_info()
BIG = model("big", 2 * GIB, 1, snapshots=True, parks=True)
OTHER = model("other", 2 * GIB, 1, snapshots=True, parks=True)


def serving(facts=BIG, **limits: int) -> World:  # type: ignore[no-untyped-def]
    """A world in which one model is loaded in no time, and nobody asks for it yet."""
    world = World(**({"patience_ns": NS, "min_residency_ns": NS, "turn_ns": NS} | limits))
    world.step(ev.ModelWanted(facts, pin=False), after_ns=NS)
    world.up("rep_1", facts.num_slots, used=facts.reserve_bytes)
    return world


def test_what_still_runs_when_its_turn_is_over_is_suspended_though_nobody_waits_for_it() -> None:
    """Seed 40: the alarm rang, and the draining model was not looked at."""
    world = serving()
    world.arrive("r", BIG)
    world.arrive("next", OTHER)
    world.step(ev.Tick(), after_ns=NS)
    assert world.state.replicas["rep_1"].state == "draining"
    assert not of(do.SuspendRow, world.log)
    assert of(do.SuspendRow, world.step(ev.Tick(), after_ns=NS))


def test_to_give_way_in_turn_is_not_to_give_way_to_a_higher_class() -> None:
    """Seed 13: it counted as a row taken, beyond the limit."""
    slots = model("big", 2 * GIB, 2, snapshots=True)
    world = serving(slots, max_preemptions=0)
    world.arrive("low", slots, ServiceClass.BATCH)
    world.arrive("next", OTHER, ServiceClass.INTERACTIVE)
    world.step(ev.Tick(), after_ns=2 * NS)
    assert of(do.SuspendRow, world.step(ev.Tick(), after_ns=2 * NS))
    assert world.state.requests["low"].num_preempted == 0


def test_who_cannot_be_suspended_gave_way_once_however_often_that_is_tried() -> None:
    """Seed 1191."""
    world = serving(suspend_retry_ns=NS)
    world.arrive("low", BIG, ServiceClass.BATCH)
    assert of(do.SuspendRow, world.arrive("next", OTHER, ServiceClass.INTERACTIVE))
    for _ in range(4):
        world.step(ev.SuspendFailed("low", FULL))
        assert of(do.SuspendRow, world.step(ev.Tick(), after_ns=NS))
    assert world.state.requests["low"].num_preempted == 1


def test_a_model_unpinned_while_it_lacked_room_leaves_the_line() -> None:
    """Seed 152."""
    world = serving()
    world.arrive("r", BIG)
    world.step(ev.ModelWanted(OTHER, pin=True, is_standing=True))
    world.state.wanted.clear()  # as when its load had failed
    assert "mdl_other" in world.state.lacking
    world.step(ev.ModelUnpinned("mdl_other"))
    assert "mdl_other" not in world.state.lacking


def test_a_parked_model_that_nobody_waits_for_any_more_has_an_alarm() -> None:
    """Seed 52: whoever waited for it gave up, and nothing else would ever have stopped it."""
    world = serving(keep_alive_ns=5 * NS, patience_ns=100 * NS)
    world.arrive("r", OTHER)
    assert of(do.ParkReplica, world.log)
    world.step(ev.ReplicaParked("rep_1", 0))
    world.up("rep_2", 1, used=2 * GIB)
    world.arrive("late", BIG)
    world.step(ev.Tick(), after_ns=10 * NS)
    world.state.timers.clear()
    world.state.alarms.clear()
    world.step(ev.Cancelled("late", "left"))
    due_ns = world.state.next_due_ns()
    assert due_ns is not None
    assert of(do.StopReplica, world.step(ev.Tick(), after_ns=due_ns - world.now_ns + MS))


def test_a_model_whose_only_request_stalls_while_suspended_keeps_no_place_in_the_line() -> None:
    """Seed 371."""
    world = serving()
    world.arrive("low", BIG, ServiceClass.BATCH)
    world.arrive("next", OTHER, ServiceClass.INTERACTIVE)
    world.step(ev.Suspended("low", 1000))
    assert "mdl_big" in world.state.lacking
    world.step(ev.ReaderStalled("low"))
    assert "mdl_big" not in world.state.lacking


def test_a_pinned_model_without_keep_alive_asks_for_no_ticks() -> None:
    """Seed 2184: one after another, without end."""
    world = serving()
    world.step(ev.ModelWanted(BIG, pin=True, keep_alive_ns=0))
    world.step(ev.Tick(), after_ns=NS)
    due_ns = world.state.next_due_ns()
    assert due_ns is None or due_ns > world.now_ns


def test_the_row_that_is_made_free_goes_to_whom_it_was_made_free_for() -> None:
    """Seeds 1778, 2259: made for one that was parked, it went to a new one, and one more was parked
    than may be."""
    facts = model(slots=2)
    world = World(max_parked=1, tuning=Tuning(slice_tokens=10, lowest_share=0.5))
    world.step(ev.ModelWanted(facts, pin=False))
    world.up("rep_1", 2)
    world.arrive("low-1", facts, ServiceClass.BATCH, owner="x/x")
    world.arrive("mid", facts)
    world.tokens("rep_1", **{"low-1": 5})
    world.arrive("high", facts, ServiceClass.INTERACTIVE)
    assert of(do.PauseRow, world.log)[-1].request_id == "low-1"
    world.arrive("low-2", facts, ServiceClass.BATCH, owner="y/y")
    for _ in range(6):
        world.tokens("rep_1", mid=5)
        assert len(world.state.replicas["rep_1"].parked) <= 1


def test_what_an_earlier_worker_said_late_does_not_cost_a_snapshot() -> None:
    """Seeds 154, 165."""
    world = serving()
    world.arrive("low", BIG, ServiceClass.BATCH)
    world.arrive("next", OTHER, ServiceClass.INTERACTIVE)
    world.step(ev.Suspended("low", 1000))
    assert not of(do.DropSnapshot, world.tokens("rep_1", low=1))
    assert world.state.requests["low"].num_tokens == 0


def test_who_is_released_before_it_has_left_comes_first_and_says_why() -> None:
    world = serving()
    world.arrive("r", BIG)
    world.step(ev.RequestHeld("r", "an operator holds it"))
    world.step(ev.RequestReleased("r"))
    (requeue,) = of(do.Requeue, world.step(ev.Suspended("r", 1000)))
    assert requeue.reason == "resumed by an operator"
    assert not world.state.requests["r"].is_held


def test_a_release_changes_nothing_for_one_that_is_being_aborted() -> None:
    """Seed 925."""
    world = serving()
    world.arrive("r", BIG)
    world.step(ev.RequestHeld("r", "an operator holds it"))
    world.step(ev.Cancelled("r", "left"))
    assert world.step(ev.RequestReleased("r")) == []
    assert world.state.requests["r"].reason == "left"


def test_a_reader_back_on_a_draining_worker_waits_from_then() -> None:
    """Seed 73: the reason of its row spoke of a wait that was over."""
    world = serving()
    world.arrive("r", BIG)
    world.step(ev.ReaderStalled("r"), after_ns=NS)
    world.step(ev.ModelUnwanted("mdl_big"))
    (unpause,) = world.step(ev.ReaderResumed("r"), after_ns=NS)
    assert unpause.reason.startswith("row 1 of 1 after 0 ms")


def test_who_is_aborted_and_whose_worker_could_not_read_its_snapshot_ends() -> None:
    """Nobody else would have ended it: that worker knows nothing of it."""
    world = serving()
    world.arrive("r", BIG)
    world.step(ev.RequestHeld("r", "an operator holds it"))
    world.step(ev.Suspended("r", 1000))
    world.step(ev.RequestReleased("r"))
    world.step(ev.Cancelled("r", "left"))
    (close,) = world.step(ev.SnapshotLost("r", "damaged"))
    assert close.event == Aborted("r", "left")


def test_a_snapshot_of_which_an_older_one_is_moved_to_the_disk_goes_there_too() -> None:
    """The answer would have freed the bytes of the newer one, which is in memory."""
    world = serving(memory_budget_bytes=3 * GIB)
    world.arrive("r", BIG)
    world.step(ev.RequestHeld("r", "x"))
    world.step(ev.Suspended("r", 1000))
    world.state.requests["r"].is_spilling = True
    world.step(ev.RequestReleased("r"))
    world.tokens("rep_1", r=1)
    (row,) = of(do.SuspendRow, world.step(ev.RequestHeld("r", "x")))
    assert row.tier == "disk"


def test_who_stalls_when_it_could_not_be_suspended_is_paused_without_room() -> None:
    """An over-commit was asserted."""
    facts = model("kv", 2 * GIB, 1, snapshots=True, kv_bytes_per_token=GIB)
    world = serving(facts, suspend_retry_ns=NS)
    world.arrive("r", facts)
    world.step(ev.RequestHeld("r", "x"))
    world.step(ev.SuspendFailed("r", FULL))
    assert of(do.UnpauseRow, world.log)
    (pause,) = of(do.PauseRow, world.step(ev.ReaderStalled("r")))
    assert pause.kind == "stalled"


def test_a_snapshot_over_which_three_workers_died_is_not_tried_again() -> None:
    world = serving(max_start_failures=10)
    world.arrive("r", BIG)
    world.step(ev.RequestHeld("r", "x"))
    world.step(ev.Suspended("r", 1000))
    world.step(ev.RequestReleased("r"))
    for number in range(1, MAX_RESUMES + 1):
        assert not of(do.Close, world.gone(f"rep_{number}"))
        world.step(ev.Tick(), after_ns=60 * NS)
        world.up(f"rep_{number + 1}", 1)
    assert of(do.Close, world.gone(f"rep_{MAX_RESUMES + 1}"))


def test_a_model_that_nobody_uses_any_more_goes_where_more_is_held_than_there_is() -> None:
    """Seed 1157: nobody could go when it swelled, and nobody looked when somebody could."""
    world = serving(max_preemptions=0)
    world.arrive("r", BIG)
    world.step(ev.ReplicaMeasured("rep_1", 3 * GIB))
    assert not of(do.StopReplica, world.log)
    decisions = world.end("r")
    assert of(do.StopReplica, decisions) or of(do.ParkReplica, decisions)


def test_a_drained_model_that_has_a_successor_is_not_parked() -> None:
    """Seed 114515: it could not be, and there were two that took requests."""
    small = model("big", GIB, 1, snapshots=True, parks=True)
    world = serving(small, memory_budget_bytes=2 * GIB)
    world.arrive("r", small)
    world.arrive("next", OTHER)
    world.step(ev.Tick(), after_ns=2 * NS)
    world.step(ev.Cancelled("next", "left"))
    world.arrive("new", small)
    assert of(do.StartReplica, world.log)[-1].model is small
    assert of(do.StopReplica, world.end("r"))
    assert not of(do.ParkReplica, world.log)


@pytest.mark.parametrize("seed", [309963, 314037, 314594])
def test_a_row_that_is_given_up_and_got_back_at_once_is_held_for_what_it_was(seed: int) -> None:
    """It was had on credit from then on, and the next class that took it did so uncounted."""
    small.world(seed).run()
