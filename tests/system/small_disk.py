"""A file system of a few megabytes, in namespaces of its own: no other process sees it."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

_HOLD = 'mount -t tmpfs -o size="$1",mode=0700 tmpfs "$2" && echo mounted && exec sleep infinity'
_BLOCK = bytes(1 << 16)


class SmallDisk:
    """A tmpfs over `folder`, kept alive by a sleeping process until `close`.

    `launcher` runs a command that sees it at `folder`; `seen` is where this process sees it.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir()
        self.folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", _HOLD, "sh", str(size_bytes), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._holder.stdout is not None
        told = self._holder.stdout.readline()
        if told != b"mounted\n":
            self.close()
            raise OSError(f"no small disk can be made here: {told.decode(errors='replace')}")
        pid = str(self._holder.pid)
        self.launcher = ["nsenter", "-t", pid, "-U", "-m", "--preserve-credentials", "--"]
        self.seen = Path(f"/proc/{pid}/root{folder}")

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.seen)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Put ballast on it until so much is left, or nothing."""
        with (self.seen / "logs" / "ballast").open("ab", buffering=0) as ballast:
            try:
                while (over := self.free_bytes - leave_bytes) > 0:
                    ballast.write(_BLOCK[:over])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def relieve(self) -> None:
        """Take the ballast off."""
        (self.seen / "logs" / "ballast").unlink()

    def close(self) -> None:
        """Let go of it; whoever still runs on it keeps it alive."""
        with contextlib.suppress(ProcessLookupError):
            self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
