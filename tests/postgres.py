"""A PostgreSQL of our own: Debian's programs, a folder, a socket, a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

PORT = 5432
_FAST = "-c fsync=off -c full_page_writes=off"
"""For tests that do not pull the plug. `make storm` runs it as it is."""


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, None where they are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class Postgres:
    """A server in a temporary folder, reached by its Unix socket only."""

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._programs = programs
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="llmos-pg-"))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.folder.chmod(0o711)
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "llmos", "-E", "UTF8", "-N")
        self._options = f"-k {self.folder} -c listen_addresses= -c max_connections=60"
        self._options += "" if durable else f" {_FAST}"
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Returns when it answers."""
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-o", self._options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is what a crash leaves behind."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def remove(self) -> None:
        """Stop it and delete all of it."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder)

    def create(self, name: str, template: str = "template0") -> str:
        """A new database, empty or a copy of one that nobody uses; its URL."""
        self._run("createdb", "-h", str(self.folder), "-U", "llmos", "-T", template, name)
        return self.url(name)

    def drop(self, name: str) -> None:
        """Also while somebody is connected to it."""
        self._run("dropdb", "-h", str(self.folder), "-U", "llmos", "--force", name)

    def url(self, name: str) -> str:
        """How a client reaches it."""
        return f"postgresql://llmos@/{name}?host={self.folder}"

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._programs / program), *args]
        as_user = {} if self._user is None else {"user": self._user.pw_uid}
        if self._user is not None:
            as_user |= {"group": self._user.pw_gid, "extra_groups": []}
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            **as_user,  # type: ignore[arg-type]
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()[-2000:]}")
