"""Room in memory, decision by decision: parked, unparked, learned, measured, shared and refused."""

from __future__ import annotations

import dataclasses

import pytest

from llmos.abi.principal import ServiceClass
from llmos.abi.suspended import Tier
from llmos.errors import LoadFailed, OutOfMemory
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.eviction import Eviction
from llmos.kernel.core.limits import NS
from llmos.kernel.core.makeroom import leaving
from llmos.kernel.core.replica import ModelFacts, ReplicaState
from tests.unit.kernel.core_world import GIB, World, model, of

BATCH, INTERACTIVE = ServiceClass.BATCH, ServiceClass.INTERACTIVE
MIB = 1 << 20
KILLED = OutOfMemory("killed for memory").to_info()


def facts(name: str, size: int = GIB, slots: int = 2, kv: int = 0) -> ModelFacts:
    """Of a driver that parks to a tenth, and takes snapshots."""
    plain = model(name, size, slots)
    return dataclasses.replace(
        plain, kv_bytes_per_token=kv, snapshots=True, parks=True, parked_bytes=size // 10
    )


def loaded(*names: str, size: int = GIB, **limits: int) -> World:
    """A world in which these are loaded and unused, the first one for longest."""
    world = World(**({"memory_budget_bytes": 2 * GIB} | limits))
    for number, name in enumerate(names, 1):
        world.step(ev.ModelWanted(facts(name, size), pin=False))
        world.now_ns += NS
        world.up(f"rep_{number}", used=size)
    return world


def states(world: World) -> dict[str, str]:
    return {r.model.ref.split(":")[0]: str(r.state) for r in world.state.replicas.values()}


def test_an_unused_model_is_parked_for_another_and_comes_back() -> None:
    world = loaded("a", size=2 * GIB)
    decisions = world.arrive("r", facts("b"))
    assert of(do.ParkReplica, decisions)[0].replica_id == "rep_1"
    assert "makes room for b:1" in of(do.ParkReplica, decisions)[0].reason
    decisions = world.step(ev.ReplicaParked("rep_1", GIB // 5))
    assert of(do.StartReplica, decisions)[0].model.ref == "b:1"
    assert world.state.ledger.holds("rep_1") == GIB // 5
    world.up("rep_2", used=GIB)
    world.end("r")
    world.arrive("s", facts("a", 2 * GIB))
    assert states(world) == {"a": "parked", "b": "stopping"}  # parked it would keep too much
    assert of(do.UnparkReplica, world.gone("rep_2", None))[0].replica_id == "rep_1"


def test_two_models_take_turns_by_parking() -> None:
    world = loaded("a", size=GIB * 3 // 2)
    world.arrive("r1", facts("b", GIB * 3 // 2))
    world.step(ev.ReplicaParked("rep_1", GIB // 8))
    world.up("rep_2", used=GIB * 3 // 2)
    world.end("r1")
    (park,) = of(do.ParkReplica, world.arrive("r2", facts("a", GIB * 3 // 2)))
    assert park.replica_id == "rep_2"
    (unpark,) = of(do.UnparkReplica, world.step(ev.ReplicaParked("rep_2", GIB // 8)))
    assert unpark.replica_id == "rep_1"
    (dispatch,) = of(do.Dispatch, world.step(ev.ReplicaUnparked("rep_1", GIB * 3 // 2)))
    assert dispatch.request_id == "r2"
    assert not of(do.StartReplica, world.log[-5:])


def test_without_parking_it_is_stopped() -> None:
    world = World(parking=False)
    world.step(ev.ModelWanted(facts("a", 2 * GIB), pin=False))
    world.up("rep_1", used=2 * GIB)
    assert of(do.StopReplica, world.arrive("r", facts("b")))
    assert not of(do.ParkReplica, world.log)


def test_what_cannot_be_parked_serves_as_before_and_what_cannot_come_back_is_replaced() -> None:
    world = loaded("a", size=2 * GIB)
    world.arrive("r", facts("b"))
    error = LoadFailed("busy").to_info()
    for _ in range(2):
        assert of(do.ParkReplica, world.step(ev.ReplicaParked("rep_1", 0, error=error)))
    assert of(do.StopReplica, world.step(ev.ReplicaParked("rep_1", 0, error=error)))
    world = loaded("a", size=GIB)
    world.arrive("r", facts("b", 2 * GIB - GIB // 8))
    world.step(ev.ReplicaParked("rep_1", GIB // 10))
    world.up("rep_2", used=GIB)
    world.end("r")
    world.arrive("s", facts("a"))
    assert states(world)["a"] == "unparking"
    decisions = world.step(ev.ReplicaRefused("rep_1", error))
    assert not of(do.Close, decisions)
    assert of(do.StopReplica, decisions)
    assert of(do.StartReplica, world.gone("rep_1", None))[0].model.ref == "a:1"


def test_the_cheapest_set_goes_by_cost_of_return_and_chance_of_use() -> None:
    world = loaded("often", "rare", parking=False)
    for number in range(20):
        world.arrive(f"o{number}", facts("often"))
        world.end(f"o{number}")
    decisions = world.arrive("r", facts("new"))
    assert [d.replica_id for d in of(do.StopReplica, decisions)] == ["rep_2"]  # used later, rarely


@pytest.mark.parametrize(
    ("eviction", "victim"), [(Eviction.LRU, "rep_1"), (Eviction.KEEP_ALIVE, "rep_2")]
)
def test_other_rules_can_be_chosen(eviction: Eviction, victim: str) -> None:
    world = World(eviction=eviction, parking=False)
    for number, keep_s in ((1, 500), (2, 100)):
        wanted = ev.ModelWanted(facts(f"m{number}"), pin=False, keep_alive_ns=keep_s * NS)
        world.step(wanted)
        world.now_ns += NS
        world.up(f"rep_{number}")
    assert [d.replica_id for d in of(do.StopReplica, world.arrive("r", facts("new")))] == [victim]


def test_a_model_in_use_has_its_time_and_then_its_requests_move() -> None:
    world = World(patience_ns=2 * NS, min_residency_ns=5 * NS, turn_ns=3 * NS)
    world.arrive("long", facts("a", 2 * GIB))
    world.up("rep_1", used=2 * GIB)
    world.arrive("r", facts("b", GIB * 3 // 2))
    world.step(ev.Tick(), after_ns=3 * NS)
    assert states(world)["a"] == "ready"
    world.step(ev.Tick(), after_ns=3 * NS)
    assert states(world)["a"] == "draining"
    assert not of(do.SuspendRow, world.step(ev.Tick(), after_ns=NS))
    (suspend,) = of(do.SuspendRow, world.step(ev.Tick(), after_ns=3 * NS))
    assert suspend.request_id == "long"
    assert of(do.ParkReplica, world.step(ev.Suspended("long", 9)))
    assert "long" in world.state.queue("mdl_a")  # it waits for its model to come back
    assert world.state.requests["long"].num_preempted == 0


def test_a_higher_class_does_not_wait_for_a_model_of_a_lower_one() -> None:
    world = World()
    world.arrive("low", facts("a", 2 * GIB), BATCH)
    world.up("rep_1", used=2 * GIB)
    decisions = world.arrive("high", facts("b", GIB), INTERACTIVE)
    assert of(do.SuspendRow, decisions)[0].request_id == "low"
    world.step(ev.Suspended("low", 9))
    decisions = world.step(ev.ReplicaParked("rep_1", GIB // 5))
    assert of(do.StartReplica, decisions)[0].model.ref == "b:1"
    assert world.state.requests["low"].num_preempted == 1


def test_a_pinned_model_stays_until_it_is_unpinned() -> None:
    world = World(patience_ns=NS, room_timeout_ns=20 * NS)
    world.step(ev.ModelWanted(facts("a"), pin=True))
    world.up("rep_1")
    world.arrive("r", facts("b", GIB + MIB))
    assert of(do.Close, world.log)[-1].event.error.code == "model_too_large"
    world.step(ev.ModelUnpinned("mdl_a"))
    assert of(do.ParkReplica, world.arrive("s", facts("b", GIB + MIB)))


def test_what_was_measured_is_reserved_the_next_time() -> None:
    world = World(memory_budget_bytes=2 * GIB)
    world.step(ev.ModelWanted(facts("a", 2 * GIB), pin=False))
    world.step(ev.ReplicaUp("rep_1", 2, GIB // 2, peak_bytes=GIB))
    assert world.state.ledger.holds("rep_1") == GIB // 2
    world.step(ev.ModelUnwanted("mdl_a"))
    world.gone("rep_1", None)
    world.step(ev.ModelWanted(facts("a", 2 * GIB), pin=False))
    assert world.state.ledger.holds("rep_2") == GIB + GIB // 50  # what it took while it loaded


def test_what_takes_more_than_was_known_makes_others_give_way() -> None:
    world = loaded("a", "b")
    decisions = world.step(ev.ReplicaMeasured("rep_2", GIB + MIB))
    assert world.state.ledger.free_bytes == -MIB
    assert [d.replica_id for d in of(do.ParkReplica, decisions)] in (["rep_1"], ["rep_2"])
    assert world.state.needs(facts("b"))["host"] > GIB


def test_nothing_is_given_out_that_was_not_measured_to_be_there() -> None:
    world = World(room_timeout_ns=5 * NS)
    world.step(ev.MemoryMeasured({"host": 0}))  # the probe has no answer
    decisions = world.arrive("r", facts("a"))
    assert not of(do.StartReplica, decisions)
    reason = of(do.LacksRoom, decisions)[0].reason
    assert reason == "a:1 lacks 1.00 GiB of host memory: others on this machine have it"
    assert of(do.StartReplica, world.step(ev.MemoryMeasured({"host": 3 * GIB})))


def test_after_an_unload_the_measured_recovery_is_waited_for() -> None:
    world = loaded("a", size=2 * GIB, parking=False)
    world.step(ev.MemoryMeasured({"host": 10 * MIB}))
    world.arrive("r", facts("b", 2 * GIB))
    assert not of(do.StartReplica, world.gone("rep_1", None))  # the ledger says yes, the probe no
    assert of(do.StartReplica, world.step(ev.MemoryMeasured({"host": 3 * GIB})))


def test_a_model_for_which_nobody_can_make_room_is_told_so_in_time() -> None:
    world = World(room_timeout_ns=5 * NS)
    world.step(ev.MemoryMeasured({"host": 0}))
    world.arrive("r", facts("a"))
    assert not of(do.Close, world.step(ev.Tick(), after_ns=3 * NS))
    (close,) = of(do.Close, world.step(ev.Tick(), after_ns=3 * NS))
    assert close.event.error.code == "out_of_memory"
    assert close.event.error.retry_after_s > 0


def test_when_others_need_memory_the_least_is_given_back() -> None:
    world = loaded("a", "b")
    decisions = world.step(ev.MemoryMeasured({"host": -MIB}))
    assert len(of(do.ParkReplica, decisions)) == 1


def test_snapshots_in_memory_go_to_the_disk_before_models_do() -> None:
    world = World(memory_budget_bytes=2 * GIB, max_snapshot_memory_bytes=GIB)
    small = facts("a", GIB // 2, kv=4 * MIB)
    world.step(ev.ModelWanted(small, pin=True))
    world.arrive("r", small, prompt=100)
    world.up("rep_1", used=GIB // 2)
    assert of(do.SuspendRow, world.step(ev.RequestHeld("r", "x")))[0].tier is Tier.MEMORY
    world.step(ev.Suspended("r", 400 * MIB))
    decisions = world.arrive("s", facts("b", GIB + GIB // 4))
    assert [type(d) for d in decisions if not isinstance(d, do.Accept | do.LacksRoom)] == [
        do.SpillSnapshot
    ]
    assert of(do.StartReplica, world.step(ev.Spilled("r")))
    assert world.state.snapshot_memory_bytes == 0


def test_a_spill_that_fails_frees_nothing_and_another_gives_way() -> None:
    world = World(memory_budget_bytes=2 * GIB, max_snapshot_memory_bytes=GIB)
    world.arrive("r", facts("a", GIB // 2, kv=4 * MIB), prompt=100)
    world.up("rep_1", used=GIB // 2)
    world.step(ev.RequestHeld("r", "x"))
    world.step(ev.Suspended("r", 400 * MIB))
    world.arrive("t", facts("a", GIB // 2))
    world.arrive("s", facts("b", GIB + GIB // 4))
    decisions = world.step(ev.Spilled("r", OutOfMemory("no disk").to_info()))
    assert not of(do.StartReplica, decisions)
    assert world.state.snapshot_memory_bytes == 400 * MIB
    assert not of(do.SpillSnapshot, world.step(ev.Tick(), after_ns=NS))  # not again at once
    assert of(do.ParkReplica, world.end("t"))


def test_a_worker_killed_for_memory_while_it_loads_cools_its_model_down() -> None:
    world = World(cooldown_ns=10 * NS)
    world.arrive("r", facts("a"))
    decisions = world.gone("rep_1", KILLED)
    assert of(do.Close, decisions)[0].event.error.code == "out_of_memory"
    assert not of(do.StartReplica, decisions)
    assert world.arrive("s", facts("a"))[0].error.retry_after_s > 0
    world.step(ev.Tick(), after_ns=11 * NS)
    assert of(do.StartReplica, world.arrive("t", facts("a")))


def test_models_are_asked_for_at_once_and_loaded_once() -> None:
    world = World()
    for number in range(200):
        world.step(ev.ModelWanted(facts("a"), pin=False))
        world.arrive(f"r{number}", facts("a"))
    assert len(of(do.StartReplica, world.log)) == 1
    assert len(of(do.Resident, world.up("rep_1"))) == 1


def test_loads_whose_victims_differ_run_side_by_side() -> None:
    world = loaded("a", "b", parking=False)
    world.arrive("r", facts("c"))
    world.arrive("s", facts("d"))
    assert {d.replica_id for d in of(do.StopReplica, world.log)} == {"rep_1", "rep_2"}
    world.gone("rep_1", None)
    world.gone("rep_2", None)
    assert {r.model.ref for r in of(do.StartReplica, world.log)} >= {"c:1", "d:1"}
    assert {r.state for r in world.state.replicas.values()} == {ReplicaState.STARTING}


def test_a_parked_model_is_stopped_after_its_keep_alive() -> None:
    world = loaded("a", size=2 * GIB, keep_alive_ns=10 * NS)
    world.arrive("r", facts("b"))
    world.step(ev.ReplicaParked("rep_1", GIB // 5))
    decisions = world.step(ev.Tick(), after_ns=20 * NS)
    assert "rep_1" in {d.replica_id for d in of(do.StopReplica, decisions)}


def test_a_model_on_a_device_takes_of_both_ledgers() -> None:
    world = World(device_budgets=(("cuda:0", GIB),))
    on_device = dataclasses.replace(facts("a", GIB // 4), device="cuda:0", device_bytes=GIB)
    world.arrive("r", on_device)
    assert world.state.ledgers["cuda:0"].free_bytes == 0
    world.step(ev.ReplicaUp("rep_1", 2, GIB // 4, device_used_bytes=GIB // 2))
    assert world.state.ledgers["cuda:0"].free_bytes == GIB // 2
    other = dataclasses.replace(on_device, model_id="mdl_b", ref="b:1", device="cuda:1")
    assert world.arrive("s", other)[0].error.code == "model_too_large"


def test_a_parked_model_that_is_stopped_gives_back_what_it_kept() -> None:
    world = loaded("a", size=2 * GIB)
    world.arrive("r", facts("b", GIB))
    world.step(ev.ReplicaParked("rep_1", GIB // 5))
    world.up("rep_2", used=GIB)
    world.step(ev.ModelWanted(facts("b", GIB), pin=True))
    decisions = world.arrive("s", facts("c", GIB))
    assert [d.replica_id for d in of(do.StopReplica, decisions)] == ["rep_1"]
    assert leaving(world.state) == {"host": GIB // 5}  # not only what parking would give
    assert of(do.StartReplica, world.gone("rep_1", None))[0].model.ref == "c:1"


def test_a_model_in_use_goes_only_where_others_lack_memory_for_long() -> None:
    world = loaded("a")
    world.arrive("r", facts("a"))
    short = ev.MemoryMeasured({"host": -MIB})
    for measured in (short, short, ev.MemoryMeasured({"host": MIB}), short, short):
        world.step(measured)
        assert world.state.replicas["rep_1"].state is ReplicaState.READY
    world.step(short)
    assert world.state.replicas["rep_1"].state is ReplicaState.DRAINING


def test_what_was_to_be_pinned_and_could_not_be_loaded_is_not_pinned_later() -> None:
    world = World(max_start_failures=1)
    world.step(ev.ModelWanted(facts("a"), pin=True))
    (resident,) = of(do.Resident, world.gone("rep_1"))
    assert resident.error is not None
    world.step(ev.Tick(), after_ns=60 * NS)
    world.arrive("r", facts("a"))
    world.up("rep_2")
    assert not world.state.pinned


def test_who_waits_is_not_told_that_there_is_no_room_while_it_is_being_made() -> None:
    world = loaded("a", size=2 * GIB, room_timeout_ns=10 * NS, patience_ns=2 * NS, turn_ns=60 * NS)
    world.arrive("long", facts("a", 2 * GIB))
    world.arrive("r", facts("b", 2 * GIB))
    assert world.state.replicas["rep_1"].state is ReplicaState.READY
    world.step(ev.Tick(), after_ns=3 * NS)
    assert world.state.replicas["rep_1"].state is ReplicaState.DRAINING
    assert not of(do.Close, world.step(ev.Tick(), after_ns=8 * NS))
    assert of(do.Close, world.step(ev.Tick(), after_ns=3 * NS))


def test_a_model_that_goes_with_time_goes_at_once_for_a_higher_class() -> None:
    world = loaded("a", size=2 * GIB, patience_ns=2 * NS, turn_ns=60 * NS)
    world.arrive("long", facts("a", 2 * GIB))
    world.arrive("r", facts("b", 2 * GIB))
    assert not of(do.SuspendRow, world.step(ev.Tick(), after_ns=3 * NS))
    assert world.state.replicas["rep_1"].state is ReplicaState.DRAINING
    (suspend,) = of(do.SuspendRow, world.arrive("urgent", facts("b", 2 * GIB), INTERACTIVE))
    assert suspend.request_id == "long"
