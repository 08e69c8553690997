"""Schedules end with the key that made them; jobs that were accepted before go on."""

from __future__ import annotations

from collections.abc import Callable

from llmos.abi.jobs import JobStore
from llmos.errors import NotFound
from llmos.kernel.jobs.disk import Disk


async def end_revoked(
    store: JobStore, disk: Disk, is_revoked: Callable[[str], bool], tenant_id: str | None = None
) -> int:
    """Remove those whose key was revoked, of one tenant or of all; how many. Raises what the store
    raises; to be called again at the next start."""
    found = await disk.once("schedules", lambda: store.list_schedules(tenant_id))
    gone = [each.schedule_id for each in found if is_revoked(each.principal.principal_id)]
    for schedule_id in gone:
        try:
            await disk.once("unschedule", lambda i=schedule_id: store.remove_schedule(i))  # type: ignore[misc]
        except NotFound:
            continue  # somebody was faster
    return len(gone)
