"""The real `llmos serve` under the storm: the same boot, with a hook at its crash points.

As a kind of life of the zygote (`live`), or alone: `python -m tests.storm.serve ORDER`, where ORDER
is JSON: `{"home": ..., "port": ..., "tally": ..., "plan": {"point": ..., "hit": ..., "act": ...}}`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llmos import boot, settings
from llmos.errors import LLMOSError
from tests.storm import clock, hook
from tests.storm import work as _work

Say = Callable[[dict[str, Any]], None]

QUICK = {
    "storage.min_free_bytes": 0,
    "storage.checkpoint_commits": 20,
    "storage.collect_interval_s": 0.5,
    "jobs.min_backoff_s": 0.02,
    "jobs.max_backoff_s": 0.2,
    "jobs.grace_s": 1.0,
    "jobs.poll_interval_s": 0.2,
    "jobs.spare_delay_s": 0.3,
    "jobs.max_deaths": 5,
    "kernel.spare_delay_s": 1.0,
    "api.graceful_timeout_s": 5.0,
}
"""Settings of a server in a hurry; nothing that a promise rests on."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """`url`: PostgreSQL's, empty for SQLite. `sets`: further settings."""

    home: str
    port: int
    tally: str
    plan: hook.Plan = hook.Plan()
    url: str = ""
    sets: dict[str, Any] = {}
    trial: str = ""
    clock: str = ""
    """The file of a clock that jumps."""


def live(order: dict[str, Any], say: Say) -> int:
    """Serve until killed, or stopped by SIGTERM. What it prints goes to the log."""
    if order.get("trial"):
        return _work.live(order, say)
    os.dup2(2, 1)
    made = msgspec.convert(order, Order)
    hook.install(made.plan, hook.Tally(Path(made.tally)))
    if made.clock:
        clock.install(Path(made.clock))
    flags = {"home": made.home, "api.port": made.port, "preload": ["echo"], **QUICK}
    if made.url:
        flags["storage.jobs_url"] = made.url
    try:
        return boot.run(settings.load({**flags, **made.sets}))
    except LLMOSError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1


def main() -> int:
    return live(msgspec.json.decode(sys.argv[1]), lambda _: None)


if __name__ == "__main__":
    sys.exit(main())
