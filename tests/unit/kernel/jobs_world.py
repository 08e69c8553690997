"""A world around the core's jobs: a store and workers that keep count of what they are told."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.jobs import ENDED, JobState
from llmos.abi.policy import Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.errors import ErrorInfo
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.jobs import JobFacts, JobPhase, Outcome, SpareState
from llmos.kernel.core.limits import NS, JobLimits, Limits
from llmos.kernel.core.policies import fair
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.state import ALARM_GRID_NS, initial
from llmos.kernel.core.step import step

MIB = 1 << 20
MODEL = ModelFacts("mdl_m", "m:1", 400 * MIB, 2)
LIMITS = JobLimits(spare_bytes=0)


@dataclass
class Kept:
    """What the store and the machine know of a job. `place`: none, claimed, worker, settling."""

    facts: JobFacts
    place: str = "claimed"
    is_frozen: bool = False
    asked: bool = False
    killed: bool = False
    frozen_at_ns: int = 0
    num_attempts: int = 0
    ended: JobState | None = None
    verdict: do.FinishJob | do.RequeueJob | None = None


class JobWorld:
    """Feeds events; every decision is held against what is true outside."""

    def __init__(
        self,
        limits: JobLimits = LIMITS,
        budget_bytes: int = 1024 * MIB,
        tuning: Tuning | None = None,
    ) -> None:
        tuning = tuning or Tuning()
        made = Limits(memory_budget_bytes=budget_bytes, jobs=limits)
        self.state = initial(made, lambda: fair.make(tuning))
        self.now_ns = NS
        self.jobs: dict[str, Kept] = {}
        self.num_arrivals = 0
        self.spare = SpareState.NONE
        self.log: list[do.Decision] = []

    # events

    def step(self, *events: ev.CoreEvent) -> list[do.Decision]:
        decisions = step(self.state, events, self.now_ns)
        for decision in decisions:
            self._saw(decision)
        self.log += decisions
        self.check()
        return decisions

    def later(self, seconds: float) -> list[do.Decision]:
        """Time passes, alarm by alarm."""
        end_ns, found = self.now_ns + int(seconds * NS), []
        while (due_ns := self.state.next_due_ns()) is not None and due_ns <= end_ns:
            self.now_ns = max(due_ns, self.now_ns)
            found += self.step(ev.Tick())
        self.now_ns = end_ns
        return found + self.step(ev.Tick())

    def claim(
        self,
        job_id: str,
        kind: ServiceClass = ServiceClass.BATCH,
        memory: int = 100,
        owner: str = "t/p",
        **facts: object,
    ) -> list[do.Decision]:
        self.num_arrivals += 1
        tenant, _, principal = owner.partition("/")
        waiting = Waiting(
            job_id, self.num_arrivals, self.now_ns, kind, 0, tenant, principal, 1.0, 0, 0
        )
        made = JobFacts(waiting, memory_bytes=memory * MIB, **facts)  # type: ignore[arg-type]
        self.jobs[job_id] = Kept(made)
        return self.step(ev.JobClaimed(made))

    def begin(self, job_id: str) -> list[do.Decision]:
        self.jobs[job_id].num_attempts += 1
        return self.step(ev.JobBegun(job_id))

    def run(self, job_id: str, **facts: object) -> None:
        self.claim(job_id, **facts)  # type: ignore[arg-type]
        assert self.jobs[job_id].place == "worker", self.state.jobs.jobs[job_id].reason
        self.begin(job_id)

    def over(
        self, job_id: str, outcome: Outcome, error: ErrorInfo | None = None
    ) -> list[do.Decision]:
        """The worker is gone; what was decided then is on disk."""
        kept = self.jobs[job_id]
        kept.place, kept.is_frozen = "settling", False
        decisions = self.step(ev.JobOver(job_id, outcome, error))
        assert kept.verdict is not None, "an end without a verdict"
        return decisions

    def settle(self, job_id: str) -> list[do.Decision]:
        kept = self.jobs[job_id]
        assert kept.place == "settling"
        if isinstance(kept.verdict, do.FinishJob):
            kept.ended = kept.verdict.state
        del self.jobs[job_id]
        return self.step(ev.JobSettled(job_id))

    def request(
        self, name: str, kind: ServiceClass, model: ModelFacts = MODEL
    ) -> list[do.Decision]:
        self.num_arrivals += 1
        waiting = Waiting(name, self.num_arrivals, self.now_ns, kind, 0, "t", "p", 1.0, 5, 0)
        return self.step(ev.Arrived(waiting, model))

    def end_spare(self) -> list[do.Decision]:
        """It is gone, asked or not."""
        self.spare = SpareState.NONE
        return self.step(ev.SpareGone(None))

    def press(self, num: int) -> None:
        """So many more interactive requests are open, of a model that is there already."""
        self.state.jobs.load[ServiceClass.INTERACTIVE] += num
        self.step(ev.Tick())

    # what is true outside

    def _saw(self, decision: do.Decision) -> None:
        job_id = getattr(decision, "job_id", None)
        kept = self.jobs.get(job_id) if job_id is not None else None
        if job_id is not None:
            assert kept is not None, f"a decision about nobody: {decision}"
            assert getattr(decision, "reason", "?"), f"no reason: {decision}"
        if isinstance(decision, do.StartJob):
            assert kept.place == "claimed", "a second attempt of one job at once"
            kept.place = "worker"
            if decision.takes_spare:
                assert self.spare is SpareState.KEPT
                self.spare = SpareState.NONE  # it is the job's worker now
        elif isinstance(decision, do.FreezeJob):
            assert kept.place == "worker"
            assert not kept.is_frozen
            kept.is_frozen, kept.frozen_at_ns = True, self.now_ns
        elif isinstance(decision, do.ThawJob):
            assert kept.is_frozen
            kept.is_frozen = False
        elif isinstance(decision, do.AskJob):
            assert kept.place == "worker"
            assert not kept.is_frozen, "asked while it cannot hear"
            kept.asked = True
        elif isinstance(decision, do.KillJob):
            assert kept.place == "worker"
            assert not kept.killed
            kept.killed, kept.is_frozen = True, False  # also one that stands still dies of it
        elif isinstance(decision, do.FinishJob | do.RequeueJob):
            assert kept.place == "settling"
            assert kept.verdict is None, "two verdicts"
            kept.verdict = decision
            if isinstance(decision, do.FinishJob):
                assert decision.state in ENDED
        elif isinstance(decision, do.ExpireJob):
            assert kept.place == "claimed"
            kept.place = "settling"
            kept.verdict = do.FinishJob(decision.job_id, JobState.FAILED, decision.reason)
        elif isinstance(decision, do.StartSpare):
            assert self.spare is SpareState.NONE
            self.spare = SpareState.KEPT
        elif isinstance(decision, do.StopSpare):
            assert self.spare is SpareState.KEPT
            self.spare = SpareState.LEAVING

    def check(self) -> None:
        """What must hold after every step."""
        board, ledger, limits = self.state.jobs, self.state.ledger, self.state.limits.jobs
        assert board.spare is self.spare
        assert set(board.jobs) == set(self.jobs), "the core and the world differ"
        held = sum(k.facts.memory_bytes for k in self.jobs.values() if k.place == "worker"
                   and not k.facts.is_call)  # fmt: skip
        held += sum(r.reserved_bytes for r in self.state.replicas.values())
        held += limits.spare_bytes if board.spare is not SpareState.NONE else 0
        assert held == ledger.reserved_bytes, "the ledger differs"
        assert 0 <= ledger.reserved_bytes <= ledger.budget_bytes, "over-commit"
        starting = sum(job.phase is JobPhase.STARTING for job in board.active.values())
        assert starting <= limits.max_running
        assert len(board.active_calls) <= limits.max_running_calls
        for job_id, job in board.jobs.items():
            kept = self.jobs[job_id]
            assert (job.phase is JobPhase.FROZEN) == kept.is_frozen
            assert (job.phase is JobPhase.SETTLING) == (kept.place == "settling")
            assert (job.phase is JobPhase.QUEUED) == (kept.place == "claimed")
            if kept.is_frozen and not job.is_held:
                longest_ns = limits.freeze_max_ns + 2 * ALARM_GRID_NS
                assert self.now_ns - kept.frozen_at_ns <= longest_ns, "frozen for too long"
            if kept.asked and kept.place == "worker" and not kept.killed:
                assert job.kill_ns is not None
                assert self.now_ns <= job.kill_ns + ALARM_GRID_NS, "a grace without end"
