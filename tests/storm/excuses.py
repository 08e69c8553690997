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
}
