"""Mechanical mutants that break no promise a client could see, each with why.

The key is the module and what was changed in which line, so that an entry dies with its line.
"""

from __future__ import annotations

EXCUSES: dict[tuple[str, str], str] = {
    (
        "llmos.storage.jobs.store",
        "compare in `jobs.c.checkpoint_digest.is_not(None), "
        "jobs.c.state != JobState.SUCCEEDED.value`",
    ): "nobody calls `digests`: the home's keeper has its own list of references",
    (
        "llmos.storage.jobs.claims",
        'compare in `.where(jobs.c.queue == WAITING, jobs.c.due_ns <= bindparam("now_ns"))`',
    ): "due a nanosecond later",
    (
        "llmos.storage.database",
        "dropped call in `self._writer.close(self._close_writer)`",
    ): "an end without a last checkpoint is a crash, and a crash loses nothing",
    (
        "llmos.kernel.jobs.writer",
        "dropped call in `self._check(last is not None)`",
    ): "an old attempt learns it from its results, and its end is refused in any case",
    (
        "llmos.kernel.jobs.entry",
        "condition in `if len(self.rates) > RATES_KEPT:`",
    ): "an estimate of the time left",
    (
        "llmos.kernel.jobs.entry",
        "arithmetic in `rate = (done - then) / max(now_s - then_s, 1e-3)`",
    ): "an estimate of the time left",
    (
        "llmos.kernel.jobs.control",
        "condition in `if over or left_s <= 0:`",
    ): "who waits for an end hears of it sooner or later; the storm's clients look for themselves",
    (
        "llmos.kernel.jobs.notes",
        "dropped assignment in "
        "`self._task = asyncio.get_running_loop().create_task(self._write())`",
    ): "the kernel's own words in a job's log are written behind and not promised",
    (
        "llmos.storage.jobs.journal",
        'compare in `job_events.c.job_id == bindparam("of_job"), '
        'job_events.c.number < bindparam("oldest")`',
    ): "one line more or less of a log that is cut at ten thousand",
}
