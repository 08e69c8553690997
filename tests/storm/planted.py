"""Bugs planted by hand: each a mistake someone could make on a durable path.

`old` occurs exactly once in the module, or the plant is out of date. `points`: where the storm that
hunts it kills; empty: anywhere. `is_cut`: it needs a power cut to show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.mutation.operators import Mutant

SRC = Path(__file__).resolve().parents[2] / "src"


def read(module: str, src: Path = SRC) -> str:
    """The source of a module by its full name."""
    return (src / (module.replace(".", "/") + ".py")).read_text()


@dataclass(frozen=True)
class Plant:
    """`level`: the storm that hunts it, `work` (storage alone) or `serve` (whole servers)."""

    name: str
    module: str
    old: str
    new: str
    level: str = "work"
    points: tuple[str, ...] = ()
    is_cut: bool = False
    act: str = "kill"
    weights: tuple[tuple[str, int], ...] = ()
    """Of clients' acts, where the usual ones would take long to find it."""
    also: tuple[tuple[str, str], ...] = ()
    """Further replacements."""

    def mutant(self, src: Path = SRC) -> Mutant:
        source = read(self.module, src)
        for old, new in ((self.old, self.new), *self.also):
            if source.count(old) != 1:
                raise LookupError(f"{self.name}: its text is {source.count(old)} times there")
            source = source.replace(old, new)
        return Mutant(self.name, self.module, source, self.name)


_COMMIT = ("database.group.before_commit",)
_JOBS = "llmos.storage.jobs."

PLANTS = (
    Plant(
        "the database is not synced",
        "llmos.storage.database",
        '"synchronous = FULL"',
        '"synchronous = OFF"',
        is_cut=True,
    ),
    Plant(
        "callers are answered before the commit",
        "llmos.storage.writer",
        '                reached("database.group.before_commit")\n',
        '                _answer(group)\n                reached("database.group.before_commit")\n',
        points=_COMMIT,
        also=(("        if self.waiter.cancelled():\n", "        if self.waiter.done():\n"),),
    ),
    Plant(
        "a blob's bytes are not synced",
        "llmos.storage.blobs",
        "                os.fsync(file.fileno())\n",
        "",
        is_cut=True,
    ),
    Plant(
        "a blob's name is not synced",
        "llmos.storage.blobs",
        "            sync_folder(target.parent)\n            sync_folder(self._home.blobs)\n",
        "",
        is_cut=True,
    ),
    Plant(
        "the folders of a new home are not synced",
        "llmos.storage.home",
        "            _sync_names(path)\n",
        "",
        is_cut=True,
    ),
    Plant(
        "an old attempt may report",
        _JOBS + "tx",
        'jobs.c.num_starts == bindparam("of_number"),',
        'jobs.c.num_starts >= bindparam("of_number"),',
        also=(
            (
                'jobs.c.holder_epoch == bindparam("of_epoch"),',
                'jobs.c.holder_epoch >= bindparam("of_epoch"),',
            ),
        ),
    ),
    Plant(
        "an attempt that gave the job back still holds it",
        _JOBS + "outcome",
        "        holder_epoch=None,\n        due_ns=due_ns,\n",
        "        due_ns=due_ns,\n",
    ),
    Plant(
        "a death is not counted",
        _JOBS + "outcome",
        "num_deaths=row.num_deaths + died",
        "num_deaths=row.num_deaths",
    ),
    Plant(
        "the newest result with a key stays, not the first",
        _JOBS + "journal",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT (job_id, stream, key) DO UPDATE SET body = excluded.body",
    ),
    Plant(
        "results are keyed by their stream alone",
        _JOBS + "journal",
        '"key": _checked(row.key, MAX_KEY_CHARS, "key")',
        '"key": _checked(row.stream, MAX_KEY_CHARS, "key")',
    ),
    Plant(
        "what dead servers ran is not taken up again",
        _JOBS + "claims",
        "    num = free(\n        JobState.RUNNING,\n",
        "    num = 0 and free(\n        JobState.RUNNING,\n",
    ),
    Plant(
        "an idempotency key is not looked up",
        _JOBS + "keys",
        "    return find_key(connection, principal_id, given)\n",
        "    return None\n",
    ),
    Plant(
        "a job does not wait for what it needs",
        _JOBS + "intake",
        "state = JobState.BLOCKED if unmet else JobState.PENDING",
        "state = JobState.PENDING",
    ),
    Plant(
        "what needed a job is not told of its success",
        _JOBS + "outcome",
        "            _unblock(tx, row.job_id, cascade)\n",
        "            pass\n",
    ),
    Plant(
        "a job is claimed before it is due",
        _JOBS + "claims",
        'jobs.c.queue == WAITING, jobs.c.due_ns <= bindparam("now_ns")',
        'jobs.c.queue == WAITING, jobs.c.due_ns > bindparam("now_ns") * 0',
    ),
    Plant(
        "exported results are kept, and exported again",
        _JOBS + "store",
        "        drop_results(tx, attempt.job_id)\n",
        "        pass\n",
    ),
    Plant(
        "a sweep does not spare what is being added",
        "llmos.storage.blobs",
        "            if digest in spared:\n                return 0\n",
        "",
        points=("blobs.seal.renamed",),
        act="stall",
        weights=(("_upload", 20), ("_submit", 20)),
    ),
    Plant(
        "a sweep does not know of files",
        "llmos.storage.references",
        '"files": select(files.c.digest)',
        '"files": select(files.c.digest).where(files.c.size_bytes < 0)',
    ),
    Plant(
        "a cancelled job may still succeed",
        _JOBS + "outcome",
        "if state is JobState.SUCCEEDED and row.cancel_reason is not None:",
        "if False:",
        weights=(("_submit", 60), ("_cancel", 60)),
    ),
    Plant(
        "server runs are not counted",
        "llmos.storage.database",
        "connection.execute(insert(boots).values(epoch=last + 1, started_ns=now))",
        "last or connection.execute(insert(boots).values(epoch=last + 1, started_ns=now))",
    ),
    Plant(
        "the kernel does not recover",
        "llmos.kernel.jobs.runner",
        "self.num_recovered = await self._recover()",
        "self.num_recovered = 0",
        level="serve",
    ),
    Plant(
        "a job is accepted before it is on disk",
        "llmos.kernel.sys_jobs",
        '    (added,) = await jobs.disk.once("add", lambda: jobs.store.add([record], '
        "body.idempotency))\n    if added",
        "    jobs._task(jobs.store.add([record], body.idempotency))\n"
        "    added = record\n    if added",
        level="serve",
        points=_COMMIT,
    ),
    Plant(
        "what a program left is not exported",
        "llmos.kernel.jobs.settle",
        "            outputs=entry.outputs,\n            error=decision.error,\n"
        "            exports=exports,\n",
        "            outputs=entry.outputs,\n            error=decision.error,\n"
        "            exports=None,\n",
        level="serve",
    ),
    Plant(
        "the answer of a durable call is not kept",
        "llmos.kernel.jobs.settle",
        "            outputs=entry.outputs,\n",
        "            outputs=None,\n",
        level="serve",
    ),
    Plant(
        "the Idempotency-Key is not read",
        "llmos.api.idempotency",
        "    if given is None:\n",
        "    if given:\n",
        level="serve",
    ),
)
