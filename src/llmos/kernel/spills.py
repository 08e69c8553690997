"""Files beside the messages: what a preparer hands to a driver that is too large for one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Spills:
    """One file for a request at most. `folder` is emptied when a server starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def path(self, request_id: str) -> str:
        """Where its preparer may put one."""
        return f"{self._folder}/spill-{request_id}"

    def discard(self, request_id: str) -> None:
        """It has ended. Idempotent; what cannot be deleted now goes with the folder."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(request_id))  # noqa: PTH108 - one short local call
