"""The rules of attempts: who may report, and that nothing runs twice at once.

For storms on the store itself, whose workers write down what they claim, begin and report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.storm.history import Asked, Heard, Seen

REPORTS = frozenset({"put", "progress", "append", "checkpoint", "requeue", "finish"})
ENDS = frozenset({"requeue", "finish"})


@dataclass
class Ledger:
    """Of one job. `ended_attempt` and `began` with the times at which that was heard."""

    claim_epoch: int = 0
    began: int = 0
    began_epoch: int = 0
    began_ns: int = 0
    over: dict[int, int] = field(default_factory=dict)
    """Attempts whose end was taken, and when that was heard."""
    ending: set[int] = field(default_factory=set)
    """Attempts whose end was asked for."""
    finished: bool = False
    touched: bool = False
    """Somebody cancelled, suspended, retried it, or its parent may: less is certain."""
    due_ns: int = 0
    num_deaths: int = 0
    unknown_deaths: int = 0
    first: dict[str, int] = field(default_factory=dict)
    """The attempt that put a key first."""
    vague: dict[str, set[int]] = field(default_factory=dict)
    """Attempts that put a key without an answer: any of these may be the first."""


class Attempts:
    def __init__(self, wrong: Callable[[str, str], None]) -> None:
        self._wrong = wrong
        self._epoch = 0
        self.ledgers: dict[str, Ledger] = {}

    def of(self, job_id: str) -> Ledger:
        return self.ledgers.setdefault(job_id, Ledger())

    def restarted(self, epoch: int) -> None:
        if epoch <= self._epoch:
            self._wrong("epoch", f"a server has epoch {epoch}, one before it had {self._epoch}")
        self._epoch = epoch

    def retried(self, job_id: str) -> None:
        ledger = self.of(job_id)
        ledger.finished, ledger.touched, ledger.num_deaths, ledger.due_ns = False, True, 0, 0

    def asked(self, asked: Asked) -> None:
        if asked.op in ("cancel", "suspend", "resume", "retry", "remove"):
            self.of(asked.job_id).touched = True
        elif asked.op in ENDS:
            ledger = self.of(asked.job_id)
            ledger.ending.add(asked.attempt)
            ledger.claim_epoch = 0
            if asked.op == "requeue":
                ledger.due_ns = 0
                ledger.unknown_deaths += asked.died
        elif asked.op == "put":
            ledger = self.of(asked.job_id)
            for key in asked.keys:
                if key not in ledger.first:
                    ledger.vague.setdefault(key, set()).add(asked.attempt)
        elif asked.op == "release":
            for job_id in asked.keys:
                self.of(job_id).claim_epoch = 0

    def heard(self, asked: Asked, heard: Heard) -> None:
        if asked.op == "put" and heard.how != "unknown":
            for key in asked.keys:
                self.of(asked.job_id).vague.get(key, set()).discard(asked.attempt)
        if heard.how != "ok":
            return
        if asked.op == "claim":
            self._claimed(asked, heard)
        elif asked.op == "begin":
            self._began(asked, heard)
        elif asked.op in REPORTS:
            self._reported(asked, heard)
        elif asked.op == "cancel":
            for seen in heard.seen:
                self.of(seen.job_id).touched = True

    def _claimed(self, asked: Asked, heard: Heard) -> None:
        ranks = [seen.rank for seen in heard.seen]
        if ranks != sorted(ranks):
            self._wrong("attempt", f"claimed in the wrong order: {ranks}")
        for seen in heard.seen:
            ledger = self.of(seen.job_id)
            if seen.state != "pending" or seen.num_unmet:
                self._wrong("needs", f"claimed {seen.job_id}: {seen.state}, {seen.num_unmet} unmet")
            if ledger.claim_epoch == asked.epoch and not ledger.touched:
                self._wrong("duplicated", f"{seen.job_id} was claimed twice by epoch {asked.epoch}")
            if ledger.finished and not ledger.touched:
                self._wrong("duplicated", f"{seen.job_id} was claimed after its end")
            if ledger.due_ns > asked.now_ns:
                self._wrong("attempt", f"{seen.job_id} was claimed before it was due")
            self._count_deaths(seen, ledger)
            ledger.claim_epoch = asked.epoch
            ledger.touched |= seen.is_child

    def _count_deaths(self, seen: Seen, ledger: Ledger) -> None:
        if ledger.touched:
            return
        most = ledger.num_deaths + ledger.unknown_deaths
        if not ledger.num_deaths <= seen.num_deaths <= most:
            self._wrong(
                "attempt", f"{seen.job_id} has {seen.num_deaths} deaths, not {ledger.num_deaths}"
            )

    def _began(self, asked: Asked, heard: Heard) -> None:
        ledger = self.of(asked.job_id)
        if not heard.taken:
            if ledger.claim_epoch == asked.epoch and not ledger.touched:
                self._wrong("stuck", f"{asked.job_id} was claimed and could not begin")
            return
        if heard.attempt <= ledger.began:
            self._wrong(
                "duplicated",
                f"{asked.job_id} began as {heard.attempt} after {ledger.began} began",
            )
        lives = ledger.began_epoch == asked.epoch and ledger.began not in ledger.ending
        if lives and ledger.began and not ledger.touched:
            self._wrong("duplicated", f"{asked.job_id} began while attempt {ledger.began} went on")
        if ledger.finished and not ledger.touched:
            self._wrong("duplicated", f"{asked.job_id} began after its end")
        ledger.began, ledger.began_epoch, ledger.began_ns = (
            heard.attempt,
            asked.epoch,
            heard.at_ns,
        )

    def _reported(self, asked: Asked, heard: Heard) -> None:
        ledger = self.of(asked.job_id)
        name = f"{asked.op} of {asked.job_id} attempt {asked.attempt}"
        is_old = (
            asked.epoch < self._epoch
            or (asked.attempt < ledger.began and ledger.began_ns < asked.at_ns)
            or ledger.over.get(asked.attempt, asked.at_ns) < asked.at_ns
        )
        if heard.taken and is_old:
            self._wrong("attempt", f"{name} was taken from an old attempt")
        is_current = asked.attempt == ledger.began and asked.epoch == self._epoch
        is_alone = asked.op in ENDS or asked.attempt not in ledger.ending
        goes_on = is_current and is_alone and asked.attempt not in ledger.over
        if not heard.taken and goes_on and not ledger.touched:
            self._wrong("lost", f"{name} was not taken, though it goes on")
        if heard.taken:
            self._took(asked, heard, ledger)

    def _took(self, asked: Asked, heard: Heard, ledger: Ledger) -> None:
        if asked.op == "put":
            for key in asked.keys:
                ledger.first.setdefault(key, asked.attempt)
        if asked.op in ENDS:
            if asked.attempt in ledger.over:
                self._wrong("duplicated", f"{asked.job_id} attempt {asked.attempt} ended twice")
            ledger.over[asked.attempt] = heard.at_ns
        if asked.op == "finish":
            if ledger.finished and not ledger.touched:
                self._wrong("duplicated", f"{asked.job_id} ended twice")
            ledger.finished = True
            if heard.seen and heard.seen[0].state != asked.state and not ledger.touched:
                self._wrong("changed", f"{asked.job_id} was to end {asked.state}")
        if asked.op == "requeue":
            ledger.unknown_deaths -= asked.died
            ledger.num_deaths += asked.died
            if not ledger.touched:
                ledger.due_ns = asked.now_ns
