"""When a schedule is due: cron's five fields in a time zone. Library: cronsim (Debian's rules)."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from llmos.errors import InvalidRequest

MAX_CRON_CHARS = 200
_NS = 1_000_000_000


def next_ns(cron: str, timezone: str, after_ns: int) -> int:
    """The first time after `after_ns` (UTC, ns). A local time that does not exist on the day the
    clocks change is made up for at once, one that comes twice is taken once.

    Raises InvalidRequest: `cron` (malformed, or never), `timezone`.
    """
    if len(cron) > MAX_CRON_CHARS or len(cron.split()) != 5:
        raise InvalidRequest("cron takes five fields: minute hour day month weekday", param="cron")
    zone = _zone(timezone)
    try:
        after = datetime.fromtimestamp(after_ns // _NS, UTC).astimezone(zone)
        found = next(CronSim(cron, after), None)
    except (CronSimError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"cron {cron[:80]!r}: {error}", param="cron") from error
    if found is None:
        raise InvalidRequest(f"cron {cron[:80]!r} is never due", param="cron")
    return int(found.timestamp()) * _NS


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidRequest(f"no time zone {name[:80]!r}", param="timezone") from error
