"""Pages that stay true: they look again and again, as often as it is cheap."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from nicegui import ui

from llmos.console.config import ConsoleConfig
from llmos.console.frame import fail
from llmos.console.page import Visit
from llmos.console.widgets import Tag
from llmos.errors import LLMOSError, PermissionDenied

MAX_PERIOD_S = 15.0
SMOOTHING = 0.3


class Pace:
    """How long to wait between two looks, so that looking takes no more than its share of a core.

    Costs are smoothed, since one look may be slow because of something else.
    """

    def __init__(self, config: ConsoleConfig) -> None:
        self._config = config
        self._cost_s = 0.0

    def after(self, cost_s: float) -> float:
        """Seconds until the next look, when this one took `cost_s` of the core."""
        self._cost_s += SMOOTHING * (cost_s - self._cost_s)
        return min(
            MAX_PERIOD_S, max(self._config.refresh_s, self._cost_s / self._config.max_core_share)
        )


async def keep_live(visit: Visit, look: Callable[[], Awaitable[None]]) -> None:
    """Call `look` now and from time to time, while somebody sees the page.

    What a key may not see is said once, in place of the page; other errors while the page lives
    are told, and it goes on.
    """
    try:
        await look()
    except PermissionDenied:
        Tag("p", visit.texts("frame.denied"), "nothing", role="alert")
        return
    pace = Pace(visit.config)

    async def again() -> None:
        began_s = time.thread_time()
        try:
            await look()
        except LLMOSError as error:
            timer.deactivate()
            fail(visit, error)
            return
        timer.interval = pace.after(time.thread_time() - began_s)

    timer = ui.timer(visit.config.refresh_s, again, immediate=False)
    ui.on("llmos_visible", lambda event: _see(timer, bool(event.args)))


def _see(timer: ui.timer, visible: bool) -> None:
    if visible:
        timer.activate()
    else:
        timer.deactivate()
