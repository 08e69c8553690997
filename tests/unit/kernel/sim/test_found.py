"""What the simulator found in the core, each as small as it could be made."""

from __future__ import annotations

from llmos.abi.principal import ServiceClass
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
