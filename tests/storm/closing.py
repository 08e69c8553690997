"""The last look: what is on the disk when all is over, against all that was heard."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from tests.storm.attempts import Attempts
from tests.storm.snapshot import ENDED_STATES, Row, Snapshot

if TYPE_CHECKING:
    from tests.storm.check import Checker, Job

CLOCK_SLACK_NS = 5_000_000_000
"""A job's end is timed before its files are made, and is on disk after."""


class Closing:
    def __init__(
        self,
        checker: Checker,
        disk: Snapshot,
        wrong: Callable[[str, str], None],
        attempts: Attempts,
    ) -> None:
        self._checker, self._disk, self._wrong, self._attempts = checker, disk, wrong, attempts

    def run(self, removed_files: set[str], by_key: dict[str, list[str]]) -> None:
        for line in self._disk.damage:
            self._wrong("disk", line)
        epochs = self._disk.epochs
        if not self._checker.clock_jumped and epochs != sorted(set(epochs)):
            self._wrong("epoch", f"server runs do not count up: {epochs[-20:]}")
        self._existence()
        self._files(removed_files)
        for key, ids in by_key.items():
            if self._disk.made_with.get(key) != ids:
                self._wrong(
                    "lost", f"key {key} made {ids}, on disk {self._disk.made_with.get(key)}"
                )
        for job_id, row in self._disk.jobs.items():
            self._job(job_id, row)

    def _existence(self) -> None:
        by_tag: dict[str, list[str]] = defaultdict(list)
        for row in self._disk.jobs.values():
            by_tag[row.tag].append(row.job_id)
        for tag, ids in by_tag.items():
            if tag not in self._checker.things:
                if not tag.startswith("*"):
                    self._wrong("duplicated", f"{ids} ({tag}): nobody asked for it")
            elif len(ids) > 1:
                self._wrong("duplicated", f"{tag} is there {len(ids)} times: {ids}")
            elif self._checker.things[tag].refused:
                self._wrong("duplicated", f"{tag} was refused, but it is there: {ids}")
        for job_id, job in self._checker.jobs.items():
            if job_id not in self._disk.jobs and not job.removed:
                self._wrong("lost", f"{job_id} ({job.tag}) was acknowledged and is gone")
            elif not job.removed and job.tag and by_tag.get(job.tag) != [job_id]:
                self._wrong("duplicated", f"{job.tag} is {by_tag.get(job.tag)}, not {job_id}")
        self._groups(by_tag.keys())

    def _groups(self, there: Collection[str]) -> None:
        """What was submitted in one call is there as a whole, or not at all."""
        removed = {job.tag for job in self._checker.jobs.values() if job.removed}
        for thing in self._checker.things.values():
            num = sum(tag in there for tag in thing.tags)
            if num not in (0, len(thing.tags)) and not removed.intersection(thing.tags):
                self._wrong("lost", f"of {thing.tags}, only {num} are there")

    def _files(self, removed: set[str]) -> None:
        by_tag: Counter[str] = Counter()
        for file_id, (tag, digest) in self._disk.files.items():
            thing = self._checker.files.get(tag)
            if thing is None:
                continue
            by_tag[tag] += 1
            if digest != thing.digest:
                self._wrong("file", f"{file_id} is {digest}, was sent as {thing.digest}")
        for tag, thing in self._checker.files.items():
            if thing.id and by_tag[tag] == 0 and thing.id not in removed:
                self._wrong("lost", f"file {thing.id} ({tag}) was acknowledged and is gone")
            if by_tag[tag] > 1:
                self._wrong("duplicated", f"file {tag} is there {by_tag[tag]} times")

    def _job(self, job_id: str, row: Row) -> None:
        if row.state not in ENDED_STATES:
            self._wrong("stuck", f"{job_id} ({row.tag}) is {row.state} in the end")
        elif row.state == "dead":
            self._wrong("lost", f"{job_id} ({row.tag}) is dead: its program killed no worker twice")
        elif row.is_claimed:
            self._wrong("stuck", f"{job_id} ended {row.state} and is still claimed")
        job = self._checker.jobs.get(job_id)
        if job is not None and not job.loose:
            self._compare(row, job)
        if row.state == "succeeded":
            self._needs(row)
            self._results(row)

    def _compare(self, row: Row, job: Job) -> None:
        end = job.end
        is_other = end is not None and end.outcome and row.outcome != end.outcome
        if end is not None and (row.state != end.state or is_other):
            self._wrong("changed", f"{row.job_id} ended {end.state}, on disk {row.state}")
        if job.told_ns and row.state == "succeeded":
            self._wrong("cancelled", f"{row.job_id} succeeded after it was cancelled")

    def _needs(self, row: Row) -> None:
        for need_id in row.needs:
            need = self._disk.jobs.get(need_id)
            if need is None:
                continue
            if need.state != "succeeded":
                self._wrong("needs", f"{row.job_id} succeeded, {need_id} {need.state}")
            elif self._is_before(row.started_ns, need.ended_ns):
                self._wrong("needs", f"{row.job_id} started before {need_id} ended")
        parent = self._disk.jobs.get(row.parent_id or "")
        parent_end_ns = None if parent is None else parent.ended_ns
        if parent_end_ns and self._is_before(parent_end_ns + CLOCK_SLACK_NS, row.started_ns):
            self._wrong("needs", f"{row.job_id} started after its parent's end")

    def _is_before(self, first_ns: int | None, second_ns: int | None) -> bool:
        return not self._checker.clock_jumped and (first_ns or 0) < (second_ns or 0)

    def _results(self, row: Row) -> None:
        thing = self._checker.things.get(row.tag)
        if thing is None or len(thing.tags) > 1:
            return
        if thing.digest and row.answer != thing.digest:
            self._wrong("results", f"{row.job_id} answers {row.answer!r}")
        if row.num_results:
            self._wrong("results", f"{row.job_id} is over, {row.num_results} rows are left")
        found = row.keys or []
        keys = [key.split("#")[0] for key in found]
        if keys != thing.keys:
            twice = [key for key, num in Counter(keys).items() if num > 1]
            gone = [key for key in thing.keys if key not in set(keys)]
            self._wrong(
                "results",
                f"{row.job_id}: {len(keys)} lines for {len(thing.keys)}, {twice[:3]} twice,"
                f" {gone[:3]} gone",
            )
        ledger = self._attempts.ledgers.get(row.job_id)
        for key in found if ledger is not None else []:
            name, _, attempt = key.partition("#")
            assert ledger is not None
            first = ledger.first.get(name)
            if attempt and first and not ledger.vague.get(name) and int(attempt) != first:
                self._wrong("results", f"{row.job_id}: {name} is of attempt {attempt}, not {first}")
