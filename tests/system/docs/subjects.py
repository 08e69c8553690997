"""What a page's placeholders stand for: `7f3a9c01` is some process, which one the verb says.

A reader puts the id of their own; here it is that of the newest process that suits, made if there
is none. Ids are given by their ends, as the documents show them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmos.abi.jobs import JobRecord, JobSpec, JobState
from llmos.sdk import Client

PLACEHOLDER = re.compile(r"\b(?:ID|7f3a9c01|91b2c7d0|0193a|sch_0193|file_ID)\b")
SHORT = 12
"""Characters of an id's end: enough to be its own."""

ASLEEP = "asleep"
LIVE = frozenset({"kill", "nice", "suspend", "cancel"})
PROGRAMS = {
    "task": "task",
    "eval": "evaluate",
    "runs": "train",
    "pipeline": "pipeline",
    "train": "train",
}


class Subjects:
    """Answers with ids; starts a job that sleeps where something live is wanted."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def fill(self, command: str) -> str:
        """The command with ids for its placeholders."""
        num_seen: dict[str, int] = {}

        def one(match: re.Match[str]) -> str:
            number = num_seen.setdefault(match[0], len(num_seen))
            return self._find(match[0], command, number)

        return PLACEHOLDER.sub(one, command)

    def clear(self) -> None:
        """Nothing of an earlier page takes a slot any more."""
        for job in self._jobs(lambda job: job.spec.name == ASLEEP and job.ended_ns is None):
            self._client.jobs.cancel(job.job_id)

    def _find(self, placeholder: str, command: str, number: int) -> str:
        if placeholder == "sch_0193":
            return self._client.schedules.list()[0].schedule_id
        if placeholder == "file_ID":
            return self._result_file()
        words = re.findall(r"[\w-]+", command[command.index("llmos ") :])
        group, verb = words[1], words[2] if len(words) > 2 else ""
        if group in LIVE or verb in LIVE:
            return self._live()[-SHORT:]
        if group == "resume":
            return self._job(lambda job: job.state is JobState.SUSPENDED)[-SHORT:]
        if verb == "retry":
            return self._job(lambda job: job.state is JobState.CANCELLED)[-SHORT:]
        if group in PROGRAMS or group == "job":
            wanted = PROGRAMS.get(group)
            suits = self._jobs(lambda job: wanted in {None, job.spec.program})
            return suits[number].job_id[-SHORT:]
        return self._request()[-SHORT:]

    def _jobs(self, suits: Callable[[JobRecord], bool]) -> list[JobRecord]:
        """Newest first."""
        return [job for job in self._client.jobs.list().jobs if suits(job)]

    def _job(self, suits: Callable[[JobRecord], bool]) -> str:
        return self._jobs(suits)[0].job_id

    def _live(self) -> str:
        """A job that does nothing for so long as this test."""
        asleep = self._jobs(lambda job: job.state is JobState.RUNNING and job.spec.name == ASLEEP)
        if asleep:
            return asleep[0].job_id
        steps = [{"do": "sleep", "seconds": 600}]
        spec = JobSpec(program="drill", inputs={"steps": steps}, name=ASLEEP)
        return self._client.jobs.submit(spec).job.job_id

    def _request(self) -> str:
        """One that has ended."""
        self._client.chat("pilot", [{"role": "user", "content": "hello"}], max_tokens=4)
        found = self._client.processes.list(state="ended")
        return next(p.process_id for p in found if p.kind == "request")

    def _result_file(self) -> str:
        """What the newest batch has made."""
        outputs = next(
            job.outputs
            for job in self._client.jobs.list().jobs
            if job.spec.program == "batch" and job.outputs
        )
        return str(outputs["files"]["output"])
