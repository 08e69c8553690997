"""What the page Training lists: jobs that log metrics, and what they say on the way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmos.abi.evals import EVALUATE
from llmos.abi.jobs import BATCH, INFER, JobRecord
from llmos.abi.tasks import TASK
from llmos.sdk.draw.curves import RunLog, names_of

OTHERS = frozenset({INFER, BATCH, TASK, EVALUATE})
"""Programs that have pages of their own, or none."""
MAX_SAMPLE_CHARS = 400


def runs(jobs: Iterable[JobRecord]) -> list[JobRecord]:
    """Those that may learn."""
    return [job for job in jobs if job.spec.program not in OTHERS]


def sample_text(value: Mapping[str, Any]) -> str:
    """A sample in one line."""
    parts = [
        f"{name}: {part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)}"
        for name, part in value.items()
    ]
    text = "  ·  ".join(parts)
    return text if len(text) <= MAX_SAMPLE_CHARS else text[: MAX_SAMPLE_CHARS - 1] + "…"


def last_values(log: RunLog) -> str:
    """The newest of the first few metrics."""
    return " · ".join(
        f"{name} {log.curves[name][-1][1]:.4g}" for name in names_of([log])[:3] if log.curves[name]
    )
