"""Three names of one thing: `batch_X` and `resp_X` are OpenAI's words for the job `job_X`."""

from __future__ import annotations

import re

from llmos.errors import NotFound

BATCH_PREFIX, RESPONSE_PREFIX = "batch_", "resp_"

_NAMED = re.compile(r"(?:job|batch|resp)_([0-9a-f]{32})")


def named(prefix: str, job_id: str) -> str:
    """A job's id under another prefix."""
    return prefix + job_id.removeprefix("job_")


def job_of(name: str, *prefixes: str) -> str:
    """The job's id of a name with one of `prefixes` (none given: any). Raises NotFound."""
    match = _NAMED.fullmatch(name)
    if match is None or (prefixes and not name.startswith(prefixes)):
        raise NotFound(f"Nothing has the id {name[:64]!r}.", param="id")
    return "job_" + match[1]
