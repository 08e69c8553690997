"""The core, decision by decision."""

from __future__ import annotations

from llmos.abi.events import Aborted, Failed, Finished
from llmos.abi.principal import ServiceClass
from llmos.errors import LoadFailed
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import NS
from llmos.kernel.core.replica import ReplicaState
from tests.unit.kernel.core_world import GIB, World, model, of


def test_a_request_is_accepted_loaded_for_dispatched_and_closed() -> None:
    world = World()
    decisions = world.arrive("r1", model())
    assert [type(d) for d in decisions] == [do.Accept, do.StartReplica]
    (dispatch,) = world.up("rep_1")
    assert dispatch == do.Dispatch(
        "r1", "rep_1", "row 1 of 2 after 0 ms, the replica started for those who waited"
    )
    (close,) = world.end("r1")
    assert isinstance(close.event, Finished)
    assert not world.state.requests
    assert world.end("r1") == []  # a second end changes nothing


def test_slots_are_never_over_committed_and_refill_in_order_of_class_nice_arrival() -> None:
    world = World()
    world.step(ev.ModelWanted(model(), pin=False))
    world.up("rep_1")
    for name in ("a", "b"):
        world.arrive(name, model())
    world.arrive("late", model())
    world.arrive("nicer", model(), nice=5)
    world.arrive("meaner", model(), nice=-5)
    world.arrive("batch", model(), ServiceClass.BATCH)
    order = []
    for name in ("a", "b", "meaner", "late", "nicer"):
        order += [d.request_id for d in of(do.Dispatch, world.end(name))]
    assert order == ["meaner", "late", "nicer", "batch"]


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    world = World(max_waiting_per_model=2)
    for i in range(2):
        assert of(do.Accept, world.arrive(f"r{i}", model()))
    (refuse,) = world.arrive("r2", model())
    assert refuse.error.code == "queue_full"
    assert refuse.error.retry_after_s >= 1


def test_all_queues_together_are_bounded() -> None:
    world = World(max_waiting=2)
    world.arrive("a", model("x"))
    world.arrive("b", model("y"))
    assert world.arrive("c", model("z"))[0].error.code == "queue_full"


def test_a_model_that_cannot_ever_fit_is_refused_with_the_arithmetic() -> None:
    (refuse,) = World().arrive("r", model(size=3 * GIB))
    assert refuse.error.code == "model_too_large"
    assert "3.00 GiB" in refuse.error.message
    assert "2.00 GiB" in refuse.error.message


def test_cancelling_a_waiting_request_ends_it_here_and_a_running_one_at_the_worker() -> None:
    world = World()
    world.arrive("running", model(slots=1))
    world.up("rep_1", slots=1)
    world.arrive("waiting", model(slots=1))
    (close,) = world.step(ev.Cancelled("waiting", "left"))
    assert close.event == Aborted("waiting", "left")
    (abort,) = world.step(ev.Cancelled("running", "left"))
    assert abort == do.AbortRow("running", "rep_1", "left")
    assert world.step(ev.Cancelled("running", "again")) == []
    assert of(do.Close, world.abort("running"))
    assert world.step(ev.Cancelled("nobody", "x")) == []


def test_a_dead_worker_ends_its_streams_and_is_replaced_at_once() -> None:
    world = World()
    world.arrive("a", model())
    world.up("rep_1")
    world.end("a")
    world.arrive("b", model())
    world.arrive("c", model())
    world.arrive("d", model())
    decisions = world.gone("rep_1")
    closed = {d.request_id: d.event for d in of(do.Close, decisions)}
    assert set(closed) == {"b", "c"}
    assert all(isinstance(e, Failed) and e.error.code == "worker_lost" for e in closed.values())
    (start,) = of(do.StartReplica, decisions)
    assert start.replica_id == "rep_2"
    assert of(do.Dispatch, world.up("rep_2"))[0].request_id == "d"


def test_other_replicas_do_not_notice_a_death() -> None:
    world = World()
    world.arrive("a", model("x"))
    world.arrive("b", model("y"))
    world.up("rep_1")
    world.up("rep_2")
    decisions = world.gone("rep_1")
    assert [d.request_id for d in of(do.Close, decisions)] == ["a"]
    assert of(do.Close, world.end("b"))


def test_a_crash_loop_backs_off_and_then_gives_up_for_a_while() -> None:
    world = World(max_start_failures=3, min_backoff_ns=NS, max_backoff_ns=8 * NS)
    world.arrive("r", model())
    assert of(do.StartReplica, world.gone("rep_1"))  # the first time at once
    assert not of(do.StartReplica, world.gone("rep_2"))
    assert not of(do.StartReplica, world.step(ev.Tick(), after_ns=NS // 2))
    assert of(do.StartReplica, world.step(ev.Tick(), after_ns=NS))
    (close,) = of(do.Close, world.gone("rep_3"))
    assert close.event.error.code == "worker_lost"
    (refuse,) = world.arrive("r2", model())
    assert refuse.error.code == "load_failed"
    assert refuse.error.retry_after_s > 0
    world.step(ev.Tick(), after_ns=20 * NS)
    assert of(do.StartReplica, world.arrive("r3", model()))


def test_a_refused_load_fails_everyone_who_waits_and_cools_down() -> None:
    world = World(cooldown_ns=10 * NS)
    world.arrive("a", model())
    world.arrive("b", model())
    error = LoadFailed("tensor missing").to_info()
    decisions = world.step(ev.ReplicaRefused("rep_1", error))
    assert {d.request_id for d in of(do.Close, decisions)} == {"a", "b"}
    assert of(do.StopReplica, decisions)
    world.gone("rep_1", None)
    assert "tensor missing" in world.arrive("c", model())[0].error.message
    world.step(ev.Tick(), after_ns=11 * NS)
    assert of(do.Accept, world.arrive("d", model()))


def test_an_idle_model_makes_room_and_a_pinned_one_does_not() -> None:
    world = World()
    world.step(ev.ModelWanted(model("pinned"), pin=True))
    world.up("rep_1")
    world.step(ev.ModelWanted(model("idle"), pin=False))
    world.up("rep_2")
    decisions = world.arrive("r", model("new"))
    assert [d.replica_id for d in of(do.StopReplica, decisions)] == ["rep_2"]
    assert of(do.StartReplica, world.gone("rep_2", None))


def test_what_pinned_models_leave_no_room_for_is_told_so() -> None:
    world = World()
    world.step(ev.ModelWanted(model("pinned"), pin=True))
    world.up("rep_1")
    accept, close = world.arrive("r", model("big", size=2 * GIB))
    assert isinstance(accept, do.Accept)
    assert close.event.error.code == "model_too_large"
    assert "pinned:1" in close.event.error.message


def test_a_busy_model_is_drained_for_one_that_has_waited_long_enough() -> None:
    world = World(patience_ns=2 * NS)
    world.arrive("long", model("busy", size=2 * GIB))
    world.up("rep_1", used=2 * GIB)
    assert not of(do.StopReplica, world.arrive("r", model("new")))
    world.step(ev.Tick(), after_ns=3 * NS)
    assert world.state.replicas["rep_1"].state is ReplicaState.DRAINING
    world.arrive("more", model("busy", size=2 * GIB))
    assert not of(do.Dispatch, world.step())  # nothing new on a draining replica
    assert of(do.StopReplica, world.end("long"))
    assert of(do.StartReplica, world.gone("rep_1", None))[0].model.ref == "new:1"


def test_an_unused_model_is_unloaded_after_its_keep_alive() -> None:
    world = World(keep_alive_ns=60 * NS)
    world.arrive("a", model(), keep_alive_ns=5 * NS)
    world.up("rep_1")
    world.end("a")
    assert not of(do.StopReplica, world.step(ev.Tick(), after_ns=4 * NS))
    assert of(do.StopReplica, world.step(ev.Tick(), after_ns=2 * NS))


def test_a_deadline_passed_in_the_queue_is_an_error() -> None:
    world = World()
    world.arrive("r", model(), deadline_ns=NS)
    (close,) = of(do.Close, world.step(ev.Tick(), after_ns=2 * NS))
    assert close.event.error.code == "deadline_exceeded"


def test_a_stalled_reader_is_paused_resumed_and_at_last_ended() -> None:
    world = World(stall_timeout_ns=10 * NS)
    world.arrive("r", model())
    world.up("rep_1")
    assert of(do.PauseRow, world.step(ev.ReaderStalled("r")))
    assert world.step(ev.ReaderStalled("r")) == []
    assert of(do.UnpauseRow, world.step(ev.ReaderResumed("r"), after_ns=NS))
    assert not of(do.Close, world.step(ev.Tick(), after_ns=20 * NS))
    world.step(ev.ReaderStalled("r"))
    decisions = world.step(ev.Tick(), after_ns=11 * NS)
    assert [type(d) for d in decisions] == [do.AbortRow, do.Close]
    assert decisions[1].event.error.code == "reader_stalled"
    assert world.abort("r") == []


def test_a_draining_server_accepts_nothing_and_lets_running_ones_end() -> None:
    world = World()
    world.arrive("r", model())
    world.up("rep_1")
    world.step(ev.Draining())
    assert world.arrive("s", model())[0].error.code == "shutting_down"
    assert of(do.Close, world.end("r"))


def test_unloading_lets_running_requests_finish() -> None:
    world = World()
    world.arrive("r", model())
    world.up("rep_1")
    assert not of(do.StopReplica, world.step(ev.ModelUnwanted("mdl_m")))
    assert of(do.StopReplica, world.end("r"))


def test_two_models_that_do_not_fit_together_take_turns() -> None:
    """Found by the state machine: they evicted each other for ever, and neither served."""
    world = World(patience_ns=2 * NS)
    small, big = model("small", GIB), model("big", 2 * GIB)
    world.arrive("a", small)
    world.arrive("b", big)
    world.step(ev.Tick(), after_ns=3 * NS)
    assert [d.request_id for d in of(do.Dispatch, world.up("rep_1"))] == ["a"]
    world.arrive("c", small)  # joins the one that is up, but does not keep it for ever
    world.step(ev.Tick(), after_ns=3 * NS)
    world.end("a")
    assert of(do.StopReplica, world.end("c"))
    world.arrive("d", small)  # came later: the room is not made for it
    started = of(do.StartReplica, world.gone("rep_1", None))
    assert [d.model.ref for d in started] == ["big:1"]


def test_who_asked_for_residency_hears_of_it_once_whatever_else_happens() -> None:
    world = World()
    world.step(ev.ModelWanted(model(), pin=False))
    assert of(do.Resident, world.gone("rep_1")) == []  # it is tried again
    assert of(do.Resident, world.up("rep_2")) == [do.Resident("mdl_m", None)]
    already = world.step(ev.ModelWanted(model(), pin=False))
    assert of(do.Resident, already) == [do.Resident("mdl_m", None)]
    assert not world.state.wanted


def test_a_load_asked_for_while_the_old_replica_stops_is_not_failed_by_its_end() -> None:
    world = World()
    world.step(ev.ModelWanted(model(), pin=False))
    world.up("rep_1")
    world.step(ev.ModelUnwanted("mdl_m"))
    world.step(ev.ModelWanted(model(), pin=False))
    assert of(do.Resident, world.gone("rep_1", None)) == []
    assert of(do.Resident, world.up("rep_2")) == [do.Resident("mdl_m", None)]


def test_a_load_that_cannot_be_is_answered() -> None:
    world = World()
    world.step(ev.ModelWanted(model("pinned"), pin=True))
    world.up("rep_1")
    (crowded,) = of(do.Resident, world.step(ev.ModelWanted(model("b", size=2 * GIB), pin=False)))
    assert crowded.error.code == "model_too_large"
    world.step(ev.ModelWanted(model("c"), pin=False))
    (unloaded,) = of(do.Resident, world.step(ev.ModelUnwanted("mdl_c")))
    assert unloaded.error.code == "conflict"


def test_closing_ends_everything_and_the_deaths_that_follow_start_nothing() -> None:
    world = World()
    world.step(ev.ModelWanted(model(), pin=True))
    world.up("rep_1")
    for name in "abc":
        world.arrive(name, model())
    closed = of(do.Close, world.step(ev.Draining(), ev.Closing()))
    assert sorted(d.request_id for d in closed) == ["a", "b", "c"]
    assert {d.event.error.code for d in closed} == {"shutting_down"}
    assert not of(do.StartReplica, world.gone("rep_1", None))
    assert not world.state.requests
