"""How long to wait before a remote is asked once more. Pure: chance is given."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

from llmos.abi.remote import Retries
from llmos.drivers.openai.limits import MAX_RETRY_AFTER_S


def delay_s(retries: Retries, num_rounds: int, chance: float) -> float:
    """After so many rounds (1 at least): exponential, less up to half of it. `chance` in [0, 1).

    Half is kept, so that a wait is one; half is by chance, so that many do not come back at once.
    """
    doublings = min(num_rounds - 1, 64)
    full_s = min(retries.max_delay_s, retries.first_delay_s * 2.0**doublings)
    return full_s * (1.0 - chance / 2)


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Of `Retry-After` (RFC 9110, 10.2.3: seconds, or a date); `now_s` is UTC. None: not said, or
    not in a form that there is."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    if math.isnan(wait_s):
        return None
    return min(max(0.0, wait_s), MAX_RETRY_AFTER_S)
