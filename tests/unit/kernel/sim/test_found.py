"""What the simulator found in the core, each as small as it could be made."""

from __future__ import annotations

from llmos.abi.policy import Tuning
from llmos.abi.principal import ServiceClass
from llmos.errors import LoadFailed
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from tests.unit.kernel.core_world import GIB, World, model, of


def test_a_pinned_model_that_others_crowd_out_sets_no_alarm_in_the_past() -> None:
    """Seeds 1292, 1782: the kernel ticked without end at one moment."""
    world = World()
    world.step(ev.ModelWanted(model("a", GIB), pin=True), after_ns=10**9)
    world.up("rep_1")
    world.step(ev.ModelWanted(model("b", 2 * GIB), pin=True))
    assert of(do.Close, world.arrive("r", model("b", 2 * GIB)))
    due_ns = world.state.next_due_ns()
    assert due_ns is None or due_ns > world.now_ns


def test_a_draining_replica_keeps_its_parked_requests_from_its_successor() -> None:
    """Many seeds: the successor was given a request whose KV lay on the drained replica."""
    world, facts = World(memory_budget_bytes=4 * GIB), model(slots=1)
    world.step(ev.ModelWanted(facts, pin=False))
    world.up("rep_1", 1)
    world.arrive("low", facts, ServiceClass.BATCH)
    assert of(do.PauseRow, world.arrive("high", facts, ServiceClass.INTERACTIVE))
    world.step(ev.ModelUnwanted(facts.model_id))
    world.arrive("new", facts)
    started = of(do.StartReplica, world.log)
    (dispatch,) = of(do.Dispatch, world.up(started[-1].replica_id, 1))
    assert dispatch.request_id == "new"
    (unpause,) = of(do.UnpauseRow, world.end("high"))
    assert (unpause.request_id, unpause.replica_id) == ("low", "rep_1")


def test_a_model_nobody_waits_for_when_it_is_up_is_unloaded_in_time() -> None:
    """Seed 10: its keep-alive began with no alarm, and on a quiet server it stayed for ever."""
    world = World(keep_alive_ns=10**9)
    world.step(ev.ModelWanted(model(), pin=False), after_ns=10**9)
    world.up("rep_1")
    assert world.state.next_due_ns() is not None
    assert of(do.StopReplica, world.step(ev.Tick(), after_ns=2 * 10**9))


def test_what_a_class_earned_is_gone_when_its_last_request_leaves_the_queue() -> None:
    world, facts = World(tuning=Tuning(slice_tokens=10, lowest_share=0.5)), model(slots=3)
    world.step(ev.ModelWanted(facts, pin=False))
    world.up("rep_1", 3)
    world.arrive("runs", facts, ServiceClass.BATCH)
    for name in ("high-1", "high-2"):
        world.arrive(name, facts, ServiceClass.INTERACTIVE)
    world.arrive("waits", facts, ServiceClass.BATCH)
    world.tokens("rep_1", **{"high-1": 9, "high-2": 9})  # earned, but no row is given up yet
    world.step(ev.Cancelled("waits", "left"))
    decisions = world.arrive("high-3", facts, ServiceClass.INTERACTIVE)
    assert [d.request_id for d in of(do.PauseRow, decisions)] == ["runs"]
    assert [d.request_id for d in of(do.Dispatch, decisions)] == ["high-3"]


def test_a_tick_does_not_look_at_everyone() -> None:
    world, facts = World(max_open_per_tenant=10**6, max_waiting=10**6), model(slots=1)
    world.step(ev.ModelWanted(facts, pin=False))
    world.up("rep_1", 1)
    for i in range(300):
        world.arrive(f"r{i}", facts, deadline_ns=10**12)
        world.step(ev.Cancelled(f"r{i}", "left"))
        world.end(f"r{i}")
    assert len(world.state.due) <= 65


def test_who_lost_its_row_to_a_higher_class_has_the_next_one_of_its_own() -> None:
    world, facts = World(max_parked=2), model(slots=1)
    world.step(ev.ModelWanted(facts, pin=False))
    world.up("rep_1", 1)
    for name in ("low-1", "low-2", "low-3"):
        world.arrive(name, facts, ServiceClass.BATCH)
    for high in ("high-1", "high-2"):
        world.now_ns += 10**9
        world.arrive(high, facts, ServiceClass.INTERACTIVE)
        ended = world.end(high)
        assert [d.request_id for d in of(do.UnpauseRow, ended)] == ["low-1"]
        assert not of(do.Dispatch, ended)


def test_a_model_unloaded_while_it_lacked_memory_loses_its_place_in_the_line() -> None:
    """Seed 406: asked for again much later, it pushed out a busy model at once."""
    world = World(patience_ns=10**9)
    world.step(ev.ModelWanted(model("a", 2 * GIB), pin=False), after_ns=10**9)
    world.up("rep_1", used=2 * GIB)
    world.arrive("busy", model("a", 2 * GIB))
    world.step(ev.ModelWanted(model("b", 2 * GIB), pin=False))
    world.step(ev.ModelUnwanted("mdl_b"))
    assert "mdl_b" not in world.state.lacking


def test_a_refusal_said_twice_does_not_fail_those_who_wait_for_its_successor() -> None:
    world, no = World(cooldown_ns=10**9), LoadFailed("no").to_info()
    world.step(ev.ModelWanted(model(), pin=False), after_ns=10**9)
    world.step(ev.ReplicaRefused("rep_1", no))
    assert of(do.StartReplica, world.step(ev.ModelWanted(model(), pin=False), after_ns=2 * 10**9))
    world.arrive("r", model())
    assert not of(do.Close, world.step(ev.ReplicaRefused("rep_1", no)))
    assert of(do.Dispatch, world.up("rep_2"))


def test_a_cool_down_stands_when_an_older_replica_dies() -> None:
    world, facts = World(memory_budget_bytes=4 * GIB), model(slots=1)
    world.step(ev.ModelWanted(facts, pin=False), after_ns=10**9)
    world.up("rep_1", 1)
    for name in ("done", "runs"):
        world.arrive(name, facts)
    world.end("done")
    world.step(ev.ModelUnwanted(facts.model_id))
    world.arrive("new", facts)
    world.step(ev.ReplicaRefused("rep_2", LoadFailed("no").to_info()))
    world.gone("rep_1")
    (refused,) = of(do.Refuse, world.arrive("later", facts))
    assert refused.error.code == "load_failed"


def test_the_pause_after_failed_starts_stands_when_an_older_replica_dies() -> None:
    """Seed 57122: the death of one that had served began the count anew, and a start at once."""
    world, facts = World(memory_budget_bytes=8 * GIB, min_backoff_ns=10**9), model(slots=1)
    world.step(ev.ModelWanted(facts, pin=False), after_ns=10**9)
    world.up("rep_1", 1)
    for name in ("done", "runs"):
        world.arrive(name, facts)
    world.end("done")
    world.step(ev.ModelUnwanted(facts.model_id))  # rep_1 drains what runs
    world.arrive("new", facts)
    world.gone("rep_2")  # one may fail at once
    world.gone("rep_3")  # the second in a row makes a pause
    assert not of(do.StartReplica, world.gone("rep_1"))
    assert of(do.StartReplica, world.step(ev.Tick(), after_ns=10**9))


def test_who_has_waited_long_for_memory_holds_what_is_free_against_those_behind() -> None:
    """A mutant's: with nobody to push out yet, a small model took the bytes that a big one waits
    for, and could do so for ever."""
    world = World(memory_budget_bytes=4 * GIB, patience_ns=10**9)
    world.arrive("runs", model("hog", 3 * GIB))
    world.step(ev.ModelWanted(model("big", 2 * GIB), pin=False))
    world.step(after_ns=15 * 10**8)
    world.up("rep_1", used=3 * GIB)  # busy at once, and too new to make room
    small = ev.ModelWanted(model("small", GIB), pin=False)
    assert not of(do.StartReplica, world.step(small))
    world.end("runs")
    (started, *_) = of(do.StartReplica, world.gone("rep_1", None))
    assert started.model.model_id == "mdl_big"
