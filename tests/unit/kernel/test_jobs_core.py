"""What the core decides about jobs, case by case."""

from __future__ import annotations

from llmos.abi.jobs import JobState
from llmos.abi.principal import ServiceClass
from llmos.errors import DiskFull, EngineFailed, ProgramFailed, WorkerError, WorkerLost
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.jobs import JobPhase, Outcome, SpareState
from llmos.kernel.core.limits import NS, JobLimits
from llmos.kernel.core.replica import ModelFacts
from tests.unit.kernel.core_world import finished, of
from tests.unit.kernel.jobs_world import MIB, MODEL, JobWorld

DEATH = WorkerLost("the worker died (signal 9)").to_info()
PASSING = EngineFailed("busy").to_info()
FINAL = ProgramFailed("ValueError: 坏了").to_info()
BATCH, DEFAULT, INTERACTIVE = ServiceClass


def verdict(world: JobWorld, job_id: str) -> do.FinishJob | do.RequeueJob:
    found = world.jobs[job_id].verdict
    assert found is not None
    return found


# queue and slots


def test_slots_are_bounded_and_a_free_one_is_the_next_ones() -> None:
    world = JobWorld()
    for name in "abc":
        world.claim(name)
    assert [world.jobs[n].place for n in "abc"] == ["worker", "worker", "claimed"]
    world.begin("a")
    assert of(do.StartJob, world.over("a", Outcome.RETURNED))[0].job_id == "c"
    assert verdict(world, "a").state is JobState.SUCCEEDED


def test_the_higher_class_goes_first_and_tenants_take_turns() -> None:
    world = JobWorld(JobLimits(max_running=1, spare_bytes=0))
    world.run("first", owner="a/x")
    for name, owner in (("a1", "a/x"), ("a2", "a/x"), ("b1", "b/x")):
        world.claim(name, owner=owner)
    world.later(1)
    world.claim("urgent", DEFAULT, owner="a/x")
    order = []
    running = "first"
    for _ in range(4):
        (start,) = of(do.StartJob, world.over(running, Outcome.RETURNED))
        world.begin(start.job_id)
        world.later(1)
        order.append(running := start.job_id)
    assert order[:2] == ["urgent", "b1"]


def test_who_waits_for_calls_lends_its_slot() -> None:
    world = JobWorld(JobLimits(max_running=1, spare_bytes=0))
    world.run("a")
    world.claim("b")
    assert of(do.StartJob, world.step(ev.JobWaits("a", True)))
    assert world.state.jobs.jobs["a"].phase is JobPhase.WAITING
    world.step(ev.JobWaits("a", False))
    assert world.state.jobs.jobs["a"].phase is JobPhase.RUNNING


def test_calls_have_a_window_of_their_own_and_take_no_memory() -> None:
    world = JobWorld(JobLimits(max_running=1, max_running_calls=2, spare_bytes=0))
    world.run("program")
    for name in ("c1", "c2", "c3"):
        world.claim(name, memory=0, is_call=True)
    assert [world.jobs[n].place for n in ("c1", "c2", "c3")] == ["worker", "worker", "claimed"]
    world.begin("c1")
    world.over("c1", Outcome.RETURNED)
    assert world.jobs["c3"].place == "worker"


def test_a_job_of_a_higher_class_takes_the_slot_of_one_that_can_come_back() -> None:
    world = JobWorld(JobLimits(max_running=1, spare_bytes=0))
    world.run("low", checkpoints=True)
    (ask,) = of(do.AskJob, world.claim("high", DEFAULT))
    assert (ask.job_id, ask.stop) == ("low", False)
    assert "class default" in ask.reason
    world.over("low", Outcome.GAVE_WAY)
    assert verdict(world, "low") == do.RequeueJob("low", 0, f"gave way: {ask.reason}")
    assert world.jobs["high"].place == "worker"


# memory


def test_idle_models_make_room_for_a_job_once_nobody_has_used_them_for_a_while() -> None:
    world = JobWorld(budget_bytes=500 * MIB)
    world.request("r", BATCH)
    world.step(ev.ReplicaUp("rep_1", 2, 400 * MIB))
    world.step(ev.Ended("r", finished("r")))
    world.claim("a", memory=300)
    assert world.jobs["a"].place == "claimed"
    assert "waits for 300 MiB" in world.state.jobs.jobs["a"].reason
    (stop,) = of(do.StopReplica, world.later(12))
    assert "makes room for job a" in stop.reason
    world.step(ev.ReplicaGone("rep_1", None))
    assert world.jobs["a"].place == "worker"


def test_what_a_job_on_its_way_out_gives_back_is_waited_for() -> None:
    world = JobWorld(budget_bytes=600 * MIB)
    world.request("r", BATCH)
    world.step(ev.ReplicaUp("rep_1", 2, 400 * MIB))
    world.run("a", memory=200)
    world.step(ev.Ended("r", finished("r")), ev.JobCancelled("a", "by its owner"))
    world.later(5)
    world.request("other", INTERACTIVE, ModelFacts("mdl_o", "o:1", 200 * MIB, 2))
    world.later(5)
    assert not of(do.StopReplica, world.log)
    world.over("a", Outcome.GAVE_WAY)
    assert of(do.StartReplica, world.log)[-1].model.model_id == "mdl_o"


def test_a_model_that_more_urgent_requests_need_makes_jobs_yield_frozen_ones_too() -> None:
    world = JobWorld(budget_bytes=500 * MIB)
    world.run("big", memory=300, checkpoints=True, compute=True)
    world.run("stays", memory=50, compute=False)
    world.later(1)
    world.request("other", INTERACTIVE, MODEL)
    (ask,) = of(do.AskJob, world.log)
    assert (ask.job_id, ask.reason) == ("big", "makes room for m:1")
    world.over("big", Outcome.GAVE_WAY)
    assert of(do.StartReplica, world.log)
    frozen = JobWorld(budget_bytes=500 * MIB)
    frozen.run("big", memory=300, checkpoints=True, compute=True)
    frozen.press(1)  # of a model that is there already
    frozen.later(3)
    assert frozen.state.jobs.jobs["big"].phase is JobPhase.FROZEN
    decisions = frozen.request("r", INTERACTIVE)
    assert [type(d) for d in decisions if getattr(d, "job_id", "")] == [do.ThawJob, do.AskJob]


def test_a_batch_request_makes_no_batch_job_yield() -> None:
    world = JobWorld(budget_bytes=500 * MIB)
    world.run("big", memory=300, checkpoints=True)
    world.request("r", BATCH)
    assert not of(do.AskJob, world.log)


def test_what_kept_models_leave_no_room_for_waits_beside_the_queue() -> None:
    world = JobWorld(budget_bytes=500 * MIB)
    world.step(ev.ModelWanted(MODEL, pin=True, is_standing=True))
    world.claim("big", memory=200)
    world.claim("small", memory=50)
    assert world.jobs["small"].place == "worker"
    assert "kept loaded" in world.state.jobs.jobs["big"].reason
    world.step(ev.ModelUnwanted(MODEL.model_id))
    world.step(ev.ReplicaGone("rep_1", None))
    assert world.jobs["big"].place == "worker"


def test_too_much_memory_is_killed_for_it_and_said_so() -> None:
    world = JobWorld()
    world.run("a")
    (kill,) = of(do.KillJob, world.step(ev.JobTooBig("a", 150 * MIB)))
    assert kill.reason == "its worker took 150 MiB of 100 MiB"
    world.over("a", Outcome.DIED, DEATH)
    found = verdict(world, "a")
    assert isinstance(found, do.FinishJob)
    assert (found.state, found.error and found.error.code) == (JobState.FAILED, "program_failed")


def test_a_spare_is_kept_taken_over_and_given_up_for_others() -> None:
    world = JobWorld(JobLimits(spare_bytes=50 * MIB), budget_bytes=500 * MIB)
    world.run("a", memory=100)
    assert world.spare is SpareState.KEPT
    world.run("b", memory=400)  # with the spare's bytes
    assert world.state.jobs.spare is SpareState.NONE
    world.over("b", Outcome.RETURNED)
    world.settle("b")
    world.later(2)
    assert world.spare is SpareState.KEPT
    (stop,) = of(do.StopSpare, world.request("r", BATCH))
    assert "m:1" in stop.reason
    assert of(do.StartReplica, world.end_spare())


# ends


def test_failures_that_may_pass_are_retried_ever_later_then_given_up() -> None:
    world = JobWorld()
    delays = []
    for num in range(3):
        world.run("a", num_failures=num)
        world.over("a", Outcome.RAISED, PASSING)
        found = verdict(world, "a")
        delays.append(found.delay_ns if isinstance(found, do.RequeueJob) else None)
        world.settle("a")
    assert delays == [NS, 2 * NS, None]
    assert isinstance(found, do.FinishJob)
    assert found.state is JobState.FAILED


def test_what_will_not_pass_fails_at_once() -> None:
    world = JobWorld()
    world.run("a")
    world.over("a", Outcome.RAISED, FINAL)
    found = verdict(world, "a")
    assert isinstance(found, do.FinishJob)
    assert found.error == FINAL


def test_the_third_death_is_the_last() -> None:
    for num_deaths, ends in ((0, False), (1, False), (2, True)):
        world = JobWorld()
        world.run("a", num_deaths=num_deaths)
        world.over("a", Outcome.DIED, DEATH)
        found = verdict(world, "a")
        assert isinstance(found, do.FinishJob) is ends
        if isinstance(found, do.FinishJob):
            assert found.state is JobState.DEAD
            assert "died 3 times" in found.reason
        else:
            assert isinstance(found, do.RequeueJob)
            assert found.died


def test_a_machine_without_processes_is_not_the_jobs_fault() -> None:
    world = JobWorld()
    world.claim("a", num_deaths=2, num_failures=2)
    error = WorkerError("a worker cannot be started: too many open files").to_info()
    world.over("a", Outcome.NOT_STARTED, error)
    found = verdict(world, "a")
    assert isinstance(found, do.RequeueJob)
    assert (found.died, found.error, found.delay_ns) == (False, None, NS)
    assert "too many open files" in found.reason


def test_who_is_asked_to_go_and_does_not_is_killed_and_that_is_no_death() -> None:
    world = JobWorld()
    world.run("a", checkpoints=True)
    world.step(ev.JobSuspended("a", "suspended by root"))
    assert not of(do.KillJob, world.later(9))
    assert of(do.KillJob, world.later(2))
    world.over("a", Outcome.DIED, DEATH)
    found = verdict(world, "a")
    assert isinstance(found, do.RequeueJob)
    assert not found.died
    assert "did not give way in time" in found.reason


def test_who_dies_by_itself_while_it_yields_has_died() -> None:
    world = JobWorld()
    world.run("a", checkpoints=True)
    world.step(ev.JobSuspended("a", "suspended by root"))
    world.over("a", Outcome.DIED, DEATH)
    found = verdict(world, "a")
    assert isinstance(found, do.RequeueJob)
    assert found.died


def test_cancelled_wins_over_whatever_it_did_meanwhile() -> None:
    for outcome in Outcome:
        world = JobWorld()
        world.run("a", timeout_ns=NS)
        world.later(2)  # it is told to stop: its time is up
        world.step(ev.JobCancelled("a", "by its owner"))
        world.over("a", outcome, FINAL)
        found = verdict(world, "a")
        assert isinstance(found, do.FinishJob)
        assert (found.state, found.reason) == (JobState.CANCELLED, "by its owner")


def test_frozen_time_is_not_the_programs_own() -> None:
    world = JobWorld()
    world.run("a", compute=True, timeout_ns=5 * NS)
    world.later(1)
    world.press(1)
    world.later(6)
    assert not of(do.AskJob, world.log)
    world.press(-1)
    world.later(10)
    assert of(do.AskJob, world.log)


def test_a_queued_job_expires_without_a_worker() -> None:
    world = JobWorld(JobLimits(max_running=1, spare_bytes=0))
    world.run("a")
    world.claim("b", expires_ns=world.now_ns + NS)
    (expire,) = of(do.ExpireJob, world.later(2))
    assert expire.job_id == "b"
    world.settle("b")


def test_what_was_wished_while_it_started_happens_when_it_runs() -> None:
    world = JobWorld()
    world.claim("a", checkpoints=True)
    assert not of(do.AskJob, world.step(ev.JobCancelled("a", "no")))
    (ask,) = of(do.AskJob, world.begin("a"))
    assert ask.stop


# freezing


def test_a_computing_job_freezes_under_load_and_has_its_share_in_any_case() -> None:
    world = JobWorld()
    world.run("a", compute=True)
    world.run("b", compute=False)
    world.later(1)
    world.request("r", INTERACTIVE)
    world.later(0.2)
    assert world.jobs["a"].is_frozen
    assert not world.jobs["b"].is_frozen
    world.later(60)
    thaws = of(do.ThawJob, world.log)
    assert len(thaws) >= 5
    assert all("share" in thaw.reason for thaw in thaws)


def test_of_thousands_of_turns_only_some_are_told() -> None:
    world = JobWorld()
    world.run("a", compute=True)
    world.later(1)
    world.press(1)
    world.later(3600)
    thaws = of(do.ThawJob, world.log)
    assert len(thaws) > 300
    assert sum(thaw.is_told for thaw in thaws) == len(thaws).bit_length()


def test_what_an_operator_holds_does_not_hold_up_the_end_of_the_server() -> None:
    world = JobWorld()
    world.run("a")
    world.step(ev.JobSuspended("a", "suspended by root"))
    assert of(do.KillJob, world.step(ev.Draining()))
    world.over("a", Outcome.DIED, DEATH)
    found = verdict(world, "a")
    assert isinstance(found, do.RequeueJob)
    assert not found.died


def test_a_full_disk_is_given_time() -> None:
    world = JobWorld()
    world.run("a")
    world.over("a", Outcome.RAISED, DiskFull("no space left").to_info())
    found = verdict(world, "a")
    assert isinstance(found, do.RequeueJob)
    assert found.delay_ns == 10 * NS


def test_short_load_freezes_nobody_and_short_rest_thaws_nobody() -> None:
    world = JobWorld()
    world.run("a", compute=True)
    world.later(1)
    world.press(1)
    world.now_ns += NS // 100
    world.step(ev.Tick())
    world.press(-1)
    world.later(1)
    assert not of(do.FreezeJob, world.log)
    world.press(1)
    world.later(1)
    assert world.jobs["a"].is_frozen
    world.press(-1)
    world.later(0.5)
    assert world.jobs["a"].is_frozen
    world.later(1)
    assert not world.jobs["a"].is_frozen


def test_load_of_its_own_class_freezes_nobody() -> None:
    world = JobWorld()
    world.run("a", kind=DEFAULT, compute=True)
    world.later(1)
    world.request("r", DEFAULT)
    world.later(5)
    assert not of(do.FreezeJob, world.log)


def test_without_checkpoints_suspending_holds_it_where_it_is() -> None:
    world = JobWorld(JobLimits(max_running=1, spare_bytes=0))
    world.run("a")
    world.claim("b")
    decisions = world.step(ev.JobSuspended("a", "suspended by root"))
    assert of(do.FreezeJob, decisions)
    assert of(do.StartJob, decisions)[0].job_id == "b"  # its slot is free, its memory is not
    world.later(1000)
    assert world.jobs["a"].is_frozen
    assert of(do.ThawJob, world.step(ev.JobResumed("a")))


# the end of the server


def test_a_stopping_server_asks_those_who_can_come_back_and_ends_the_others_later() -> None:
    world = JobWorld()
    world.run("polite", checkpoints=True)
    world.run("rude")
    world.claim("queued")
    (ask,) = of(do.AskJob, world.step(ev.Draining()))
    assert (ask.job_id, ask.stop) == ("polite", False)
    world.over("polite", Outcome.GAVE_WAY)
    world.settle("polite")
    assert world.jobs["queued"].place == "claimed"
    (kill,) = of(do.KillJob, world.step(ev.Closing()))
    assert kill.job_id == "rude"
    world.over("rude", Outcome.DIED, DEATH)
    assert verdict(world, "rude") == do.RequeueJob(
        "rude", 0, "did not give way in time: the server is stopping"
    )
