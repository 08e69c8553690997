"""Jobs in the core: anything, in any order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.jobs import JobPhase, Outcome, SpareState
from llmos.kernel.core.limits import NS, JobLimits
from tests.unit.kernel.core_world import finished, of
from tests.unit.kernel.jobs_world import MIB, JobWorld
from tests.unit.kernel.test_jobs_core import DEATH, PASSING

SECONDS = (0.01, 0.2, 1.0, 5.0, 30.0)

OUTCOMES = st.sampled_from(list(Outcome))

indexes = st.integers(0, 20)


class JobsMachine(RuleBasedStateMachine):
    """Owners, operators, workers, requests and time do what they like; `JobWorld.check` judges."""

    def __init__(self) -> None:
        super().__init__()
        limits = JobLimits(max_running=2, max_running_calls=2, spare_bytes=30 * MIB)
        self.world = JobWorld(limits, budget_bytes=600 * MIB)
        self.num = 0
        self.requests: list[str] = []

    def pick(self, index: int, *places: str) -> str | None:
        pool = [name for name, kept in self.world.jobs.items() if kept.place in places]
        return pool[index % len(pool)] if pool else None

    @precondition(lambda self: len(self.world.jobs) < 12)
    @rule(
        kind=st.sampled_from(ServiceClass),
        memory=st.sampled_from([20, 150, 300, 600]),
        owner=st.sampled_from(["a/x", "a/y", "b/x"]),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        seconds=st.tuples(st.sampled_from([None, 1.0]), st.sampled_from([None, 5.0])),
        counts=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    )
    def submit(self, kind, memory, owner, flags, seconds, counts) -> None:  # type: ignore[no-untyped-def]
        self.num += 1
        compute, checkpoints, is_call = flags
        timeout_s, expires_s = seconds
        self.world.claim(
            f"j{self.num}",
            kind,
            0 if is_call else memory,
            owner,
            compute=compute and not is_call,
            checkpoints=checkpoints and not is_call,
            is_call=is_call,
            num_deaths=counts[0],
            num_failures=counts[1],
            timeout_ns=None if timeout_s is None else int(timeout_s * NS),
            expires_ns=None if expires_s is None else self.world.now_ns + int(expires_s * NS),
        )

    @rule(index=indexes, is_let=st.booleans())
    def begin(self, index: int, is_let: bool) -> None:
        name = self.pick(index, "worker")
        if name is None or self.world.state.jobs.jobs[name].phase is not JobPhase.STARTING:
            return
        if is_let:
            self.world.begin(name)
        else:
            del self.world.jobs[name]
            self.world.step(ev.JobNotBegun(name))

    @rule(index=indexes, outcome=OUTCOMES)
    def over(self, index: int, outcome: Outcome) -> None:
        name = self.pick(index, "worker")
        if name is not None and not (self.world.jobs[name].is_frozen and outcome != Outcome.DIED):
            error = PASSING if outcome is Outcome.RAISED else DEATH
            self.world.over(name, outcome, error)

    @rule(index=indexes)
    def settle(self, index: int) -> None:
        name = self.pick(index, "settling")
        if name is not None:
            self.world.settle(name)

    @rule(index=indexes, is_idle=st.booleans())
    def wait(self, index: int, is_idle: bool) -> None:
        name = self.pick(index, "worker")
        if name is not None and not self.world.jobs[name].is_frozen:
            self.world.step(ev.JobWaits(name, is_idle))

    @rule(index=indexes, what=st.sampled_from(["cancel", "suspend", "resume", "nice", "big"]))
    def operate(self, index: int, what: str) -> None:
        name = self.pick(index, "worker", "claimed", "settling") or "nobody"
        place = self.world.jobs[name].place if name in self.world.jobs else ""
        if what in ("cancel", "suspend") and place == "claimed":  # the store has it ended, or held
            del self.world.jobs[name]
            self.world.step(ev.JobDropped(name))
            return
        event: dict[str, ev.CoreEvent] = {
            "cancel": ev.JobCancelled(name, "killed"),
            "suspend": ev.JobSuspended(name, "suspended"),
            "resume": ev.JobResumed(name),
            "nice": ev.JobReniced(name, 5, ServiceClass.DEFAULT),
            "big": ev.JobTooBig(name, 999 * MIB),
        }
        self.world.step(event[what])

    @rule(kind=st.sampled_from(ServiceClass))
    def ask(self, kind: ServiceClass) -> None:
        name = f"r{self.num}_{len(self.world.log)}"
        if of(do.Accept, self.world.request(name, kind)):
            self.requests.append(name)

    @rule(index=indexes)
    def answer(self, index: int) -> None:
        world = self.world
        for replica in list(world.state.replicas.values()):
            if replica.state == "starting":
                world.step(ev.ReplicaUp(replica.replica_id, 2, 400 * MIB))
            elif replica.state == "stopping":
                world.step(ev.ReplicaGone(replica.replica_id, None))
        running = [r for r in world.state.requests.values() if r.state in ("running", "stopping")]
        if running:
            request_id = running[index % len(running)].waiting.request_id
            world.step(ev.Ended(request_id, finished(request_id)))

    @rule()
    def end_spare(self) -> None:
        if self.world.spare is not SpareState.NONE:
            self.world.end_spare()

    @rule(seconds=st.sampled_from(SECONDS))
    def pass_time(self, seconds: float) -> None:
        self.world.later(seconds)

    def teardown(self) -> None:
        """Left alone, with workers that obey, everything ends or is released."""
        world = self.world
        for request in list(world.state.requests):
            world.step(ev.Cancelled(request, "over"))
        for _ in range(400):
            if not world.jobs:
                return
            self.end_spare()
            self.answer(0)
            for name, kept in list(world.jobs.items()):
                job = world.state.jobs.jobs.get(name)
                if kept.place == "settling":
                    world.settle(name)
                elif job is not None and job.is_held:
                    world.step(ev.JobResumed(name))
                elif job is not None and job.phase is JobPhase.STARTING:
                    world.begin(name)
                elif kept.place == "worker" and not kept.is_frozen:
                    world.over(name, Outcome.RETURNED)
            world.later(1)
        raise AssertionError(f"never ends: {world.jobs}")


TestJobsMachine = JobsMachine.TestCase

TestJobsMachine.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
