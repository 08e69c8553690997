"""The checker: does what clients heard, and what is on the disk in the end, keep the promises?

After Jepsen's checkers of sets and registers: every operation is an interval from the asking to the
answer, one whose answer never came may have been done or not until the next restart has settled it.
Facts are kept with the time at which they were heard, and hold for whatever was asked after that:
each line is looked at once, nothing is searched for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.storm.attempts import Attempts
from tests.storm.history import Asked, Heard, Line, Mark, Seen, SeenFile
from tests.storm.snapshot import ENDED_STATES, Snapshot

MAY_HAVE_BEEN_DONE = frozenset({"storage_error", "disk_full", "deadline_exceeded"})
"""Refusals after which nobody can say that nothing was done: an fsync that failed."""

WANT_OF_ROOM = frozenset({"queue_full", "quota_exceeded", "shutting_down", "unreachable"})
"""Refusals of good requests."""

REFUSE_S = 1.0
RECOVER_S = 10.0
NS = 1_000_000_000


@dataclass(frozen=True)
class Violation:
    """`rule` is one word: lost, duplicated, stuck, changed, epoch, cancelled, needs, results,
    file, attempt, disk, error, fault."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass
class Job:
    """What is known of one. `*_ns`: when it was heard. A job is `loose` while a retry of it may or
    may not have been done: nothing is concluded then."""

    known_ns: int
    tag: str = ""
    removed: bool = False
    epoch: int = 0
    epoch_ns: int = 0
    end: Seen | None = None
    end_ns: int = 0
    told_ns: int = 0
    loose: bool = False
    loosened_ns: int = 0


@dataclass
class Thing:
    """What one tag was asked to make: a job, or a file. `id`: as it was acknowledged."""

    tags: list[str]
    key: str
    keys: list[str]
    digest: str = ""
    id: str = ""
    refused: bool = False
    asks: int = 1


class Checker:
    """Feed it all lines in order of time, then `close` it with what is on the disk."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.jobs: dict[str, Job] = {}
        self.things: dict[str, Thing] = {}
        self.files: dict[str, Thing] = {}
        self.counts: Counter[str] = Counter()
        self._open: dict[tuple[str, int], Asked] = {}
        self._attempts = Attempts(self._wrong)
        self._removed_files: set[str] = set()
        self.clock_jumped = False
        """Times on disk are not to be compared then."""
        self._by_key: dict[str, list[str]] = {}
        self._loose: set[str] = set()
        self._fault = ""
        self._fault_ns = self._healed_ns = self._recovered_ns = 0
        self.refusals_s: dict[str, list[float]] = {}
        """Of every fault, how long refusals took."""
        self.recoveries_s: dict[str, list[float]] = {}
        """… and how long after its end work was taken again."""
        self._on: dict[str, Callable[[Asked, Heard], None]] = {
            "submit": self._submitted,
            "show": self._shown,
            "list": self._shown,
            "cancel": self._cancelled,
            "suspend": self._controlled,
            "resume": self._controlled,
            "retry": self._controlled,
            "remove": self._removed,
            "file_add": self._file_added,
            "file_show": self._file_shown,
            "file_read": self._file_shown,
            "file_remove": self._file_removed,
        }

    def _wrong(self, rule: str, text: str) -> None:
        self.violations.append(Violation(rule, text))

    def feed(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if isinstance(line, Mark):
                self._marked(line)
            elif isinstance(line, Asked):
                self._asked(line)
            elif (asked := self._open.pop((line.who, line.number), None)) is not None:
                self._heard(asked, line)

    # what was done to the server

    def _marked(self, mark: Mark) -> None:
        self.counts[mark.what] += 1
        if mark.what == "ready":
            self._settle()
            self._attempts.restarted(mark.epoch)
        elif mark.what == "clock":
            self.clock_jumped = True
        elif mark.what == "fault":
            self._fault, self._fault_ns = mark.detail, mark.at_ns
            self._healed_ns = self._recovered_ns = 0
        elif mark.what == "healed":
            self._healed_ns = mark.at_ns

    def _settle(self) -> None:
        """The server that was asked is dead: what it has not done by now it never will."""
        waiting = {asked.job_id for asked in self._open.values() if asked.op == "retry"}
        for job_id in self._loose - waiting:
            self.jobs[job_id].loose = False
        self._loose &= waiting

    # operations

    def _asked(self, asked: Asked) -> None:
        self._open[asked.who, asked.number] = asked
        if asked.op in ("submit", "file_add"):
            known = self.files if asked.op == "file_add" else self.things
            tags = asked.tags or [asked.tag]
            if tags[0] in known:
                known[tags[0]].asks += 1
                known[tags[0]].refused = False
            thing = Thing(tags, asked.key, asked.keys, asked.digest)
            for tag in tags:
                known.setdefault(tag, thing)
        elif asked.op == "retry" and (job := self.jobs.get(asked.job_id)) is not None:
            job.loose, job.loosened_ns, job.end, job.told_ns = True, asked.at_ns, None, 0
            self._loose.add(asked.job_id)
            self._attempts.retried(asked.job_id)
        elif asked.op == "remove" and (job := self.jobs.get(asked.job_id)) is not None:
            job.removed = True
        elif asked.op == "file_remove":
            self._removed_files.add(asked.file_id)
        self._attempts.asked(asked)

    def _heard(self, asked: Asked, heard: Heard) -> None:
        self.counts[heard.how] += 1
        self._time(asked, heard)
        if heard.how == "no":
            self._refused(asked, heard)
        if heard.how == "ok":
            for seen in heard.seen:
                self._see(asked, heard, seen)
            if (handle := self._on.get(asked.op)) is not None:
                handle(asked, heard)
        if asked.op == "retry" and heard.how != "unknown":
            self._loose.discard(asked.job_id)
            if (job := self.jobs.get(asked.job_id)) is not None:
                job.loose, job.loosened_ns = False, heard.at_ns
        self._attempts.heard(asked, heard)

    def _time(self, asked: Asked, heard: Heard) -> None:
        """Refused at once while the disk fails, taken again soon after."""
        if asked.at_ns < self._fault_ns or not self._fault_ns or asked.op not in WRITES:
            return
        if not self._healed_ns and heard.how != "ok":
            took_s = (heard.at_ns - asked.at_ns) / NS
            self.refusals_s.setdefault(self._fault, []).append(took_s)
            if took_s > REFUSE_S or heard.how == "unknown":
                self._wrong("fault", f"{self._fault}: {asked.op} {heard.how} after {took_s:.2f} s")
        if heard.how == "ok" and asked.at_ns > self._healed_ns > self._recovered_ns:
            self._recovered_ns = heard.at_ns
            took_s = (heard.at_ns - self._healed_ns) / NS
            self.recoveries_s.setdefault(self._fault, []).append(took_s)
            if took_s > RECOVER_S:
                self._wrong("fault", f"{self._fault}: work was taken again {took_s:.2f} s after")

    def _is_faulty(self, asked: Asked) -> bool:
        """Whether the disk failed lately when this was asked."""
        late_ns = self._healed_ns + int(RECOVER_S * NS)
        return self._fault_ns > 0 and (not self._healed_ns or asked.at_ns < late_ns)

    def _refused(self, asked: Asked, heard: Heard) -> None:
        self.counts[f"refused: {heard.code}"] += 1
        if heard.code in ("internal_error", ""):
            self._wrong("error", f"{asked.op} {asked.tag or asked.job_id}: {heard.code!r}")
        if heard.code in MAY_HAVE_BEEN_DONE and not self._is_faulty(asked):
            self._wrong("error", f"{asked.op} {asked.tag or asked.job_id}: {heard.code!r}")
        known = {"submit": self.things, "file_add": self.files}.get(asked.op, {})
        first = known.get(asked.tag or (asked.tags or [""])[0])
        is_again = heard.code == "not_found" and first is not None and first.asks > 1
        is_good = heard.code in WANT_OF_ROOM | MAY_HAVE_BEEN_DONE
        if asked.plain and not is_good and not is_again:  # what a key made may be removed by now
            self._wrong("error", f"{asked.op} {asked.tag} was refused: {heard.code!r}")
        for tag in asked.tags or [asked.tag]:
            thing = known.get(tag)
            if thing is not None and heard.code not in MAY_HAVE_BEEN_DONE and thing.asks == 1:
                thing.refused = True
        if heard.code == "not_found":
            self._not_found(asked)

    def _not_found(self, asked: Asked) -> None:
        job = self.jobs.get(asked.job_id)
        if job is not None and asked.at_ns > job.known_ns and not job.removed:
            self._wrong("lost", f"{asked.job_id} ({job.tag}) is not found by {asked.op}")
        is_of_file = asked.op in ("file_show", "file_read")
        if is_of_file and asked.file_id not in self._removed_files:
            self._wrong("lost", f"{asked.file_id} is not found by {asked.op}")

    def _see(self, asked: Asked, heard: Heard, seen: Seen) -> None:
        """One more look at a job: it must not contradict what was known when it was asked for."""
        job = self.jobs.get(seen.job_id)
        if job is None:
            job = self.jobs[seen.job_id] = Job(heard.at_ns, seen.tag)
        if job.epoch > seen.epoch > 0 and asked.at_ns > job.epoch_ns:
            self._wrong("epoch", f"{seen.job_id} went from epoch {job.epoch} to {seen.epoch}")
        if seen.epoch > job.epoch:
            job.epoch, job.epoch_ns = seen.epoch, heard.at_ns
        is_end = seen.state in ENDED_STATES
        if job.loose or asked.at_ns < job.loosened_ns:
            return
        if job.end is not None and (is_end or asked.at_ns > job.end_ns):
            self._compare(job, seen)
        if is_end and job.end is None:
            job.end, job.end_ns = seen, heard.at_ns
            if seen.state == "succeeded" and job.told_ns:
                self._wrong("cancelled", f"{seen.job_id} succeeded after it was cancelled")

    def _compare(self, job: Job, seen: Seen) -> None:
        end = job.end
        assert end is not None
        if not end.outcome and seen.state == end.state:
            job.end = seen
        elif seen.state != end.state or (seen.outcome and seen.outcome != end.outcome):
            self._wrong(
                "changed",
                f"{seen.job_id} ended {end.state} {end.outcome}, then was {seen.state}"
                f" {seen.outcome}",
            )

    def _submitted(self, asked: Asked, heard: Heard) -> None:
        ids = [seen.job_id for seen in heard.seen]
        tags = asked.tags or [asked.tag]
        if asked.key and self._by_key.setdefault(asked.key, ids) != ids:
            self._wrong("duplicated", f"key {asked.key}: {self._by_key[asked.key]}, then {ids}")
        if len(ids) != len(tags):
            self._wrong("duplicated", f"{tags}: {len(ids)} jobs for {len(tags)}")
            return
        for tag, job_id in zip(tags, ids, strict=True):
            thing = self.things[tag]
            if len(tags) == 1:
                if thing.id not in ("", job_id):
                    self._wrong("duplicated", f"{tag} is {thing.id}, then {job_id}")
                thing.id = job_id
            self.jobs[job_id].tag = tag
            self.counts["accepted"] += asked.number > 0

    def _shown(self, asked: Asked, heard: Heard) -> None:
        """All there is to check is in what was seen."""

    def _cancelled(self, asked: Asked, heard: Heard) -> None:
        for seen in heard.seen:
            job = self.jobs[seen.job_id]
            if seen.is_told and not job.loose and job.end is None:
                job.told_ns = heard.at_ns

    def _controlled(self, asked: Asked, heard: Heard) -> None:
        """What was acknowledged is so in the very answer."""
        for seen in heard.seen:
            is_so = {
                "suspend": seen.state == "suspended",
                "resume": seen.state != "suspended",
                "retry": seen.state in ("pending", "blocked"),
            }
            if not is_so[asked.op]:
                self._wrong("changed", f"{asked.op} of {seen.job_id} left it {seen.state}")

    def _removed(self, asked: Asked, heard: Heard) -> None:
        self.counts["removed"] += 1

    # files

    def _file_added(self, asked: Asked, heard: Heard) -> None:
        (file,) = heard.files
        thing = self.files[asked.tag]
        if thing.id not in ("", file.file_id):
            self._wrong("duplicated", f"file {asked.tag} is {thing.id}, then {file.file_id}")
        thing.id = file.file_id
        self.counts["files"] += 1
        self._check_file(file)

    def _file_shown(self, asked: Asked, heard: Heard) -> None:
        for file in heard.files:
            self._check_file(file)

    def _check_file(self, file: SeenFile) -> None:
        thing = self.files.get(file.tag)
        if thing is not None and file.digest and file.digest != thing.digest:
            self._wrong("file", f"{file.file_id} is {file.digest}, was sent as {thing.digest}")

    def _file_removed(self, asked: Asked, heard: Heard) -> None:
        self.counts["files removed"] += 1

    # the end

    def close(self, disk: Snapshot) -> list[Violation]:
        """What is on the disk against all that was heard. The violations, all of them."""
        from tests.storm.closing import Closing

        Closing(self, disk, self._wrong, self._attempts).run(self._removed_files, self._by_key)
        return self.violations


WRITES = frozenset({"submit", "file_add"})
