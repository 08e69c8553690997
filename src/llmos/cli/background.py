"""A server in the background: started when a command needs one, found again, stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from llmos.cli.config import LIMITS
from llmos.cli.output import note
from llmos.cli.progress import spinner
from llmos.cli.text import visible
from llmos.errors import Conflict, LLMOSError, ServerUnreachable, StorageError
from llmos.sdk import Client
from llmos.sdk.config import ClientConfig
from llmos.sdk.locate import ServerFile, find_server_file, locate

_PORT_TAKEN = re.compile(r"cannot listen on \S+(?=: another program)")


def ensure_server() -> None:
    """Start the home's server unless one answers. A server named by URL is never ours to start."""
    home = locate().home
    if home is None or answers(home):
        return
    with spinner(f"starting a server for {home}"):
        start_server(home)


def answers(home: Path) -> bool:
    """Whether a server of this home answers now."""
    config = ClientConfig(read_timeout_s=LIMITS.probe_timeout_s)
    with Client(home=home, config=config) as client:
        try:
            client.health()
        except LLMOSError:
            return False
    return True


def start_server(home: Path) -> None:
    """Start `llmos serve` detached, and return when it answers. Raises ServerUnreachable.

    Commands reach it by its socket, so a port that is taken is no reason to give up: it gets
    another one.
    """
    try:
        _start(home, [])
    except _PortTaken as error:
        note(f"{error}; the server takes another port, `llmos status` shows it")
        _start(home, ["--port", "0"])


class _PortTaken(Exception):
    """Another program listens where the server should."""


def _start(home: Path, options: list[str]) -> None:
    # no module of the working folder, which is kept for its `llmos.toml`
    command = [sys.executable, "-P", "-m", "llmos.cli.main", "serve", "--home", str(home), *options]
    log = home / "logs" / "serve.log"
    with _open_log(log) as file:
        offset = file.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + LIMITS.start_timeout_s
    is_ours = True
    while time.monotonic() < deadline:
        if answers(home):
            return
        if is_ours and process.poll() is not None:
            tail = _tail(log, offset)
            if not options and (taken := _PORT_TAKEN.search(tail)):
                raise _PortTaken(taken.group())
            if "home_locked" not in tail:
                raise _failed("the server did not start", log, offset)
            # someone else is starting this home's server at this moment: theirs will do
            is_ours = False
            deadline = min(deadline, time.monotonic() + LIMITS.rival_timeout_s)
        time.sleep(LIMITS.poll_interval_s)
    if is_ours:
        process.terminate()
    raise _failed("the server did not answer in time", log, offset)


def _open_log(log: Path) -> IO[bytes]:
    try:
        home = log.parent.parent
        home.parent.mkdir(parents=True, exist_ok=True)
        for folder in (home, log.parent):  # `parents` would leave the home open to everyone
            folder.mkdir(mode=0o700, exist_ok=True)
        return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise StorageError(f"{log} cannot be written: {error.strerror}") from error


def _failed(what: str, log: Path, offset: int) -> ServerUnreachable:
    tail = _tail(log, offset)
    if tail:
        sys.stderr.write(f"--- the end of {log}\n{visible(tail)}\n---\n")
    return ServerUnreachable(f"{what}; its log is {log}", details={"log": str(log)})


def _tail(log: Path, offset: int) -> str:
    """The last lines written since `offset`."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - LIMITS.log_tail_bytes))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LIMITS.log_tail_lines :])


def stop_server(home: Path) -> ServerFile | None:
    """Ask the home's server to drain and end, and wait until it has; None when there is none.

    The pid of `server.json` is believed only while a server answers at the home: a file left by a
    killed server may name a process that is someone else's by now. Raises Conflict when it does
    not end in time.
    """
    server = find_server_file(home)
    if server is None or not answers(home):
        return None
    try:
        os.kill(server.pid, signal.SIGTERM)
    except ProcessLookupError:
        return None
    except PermissionError as error:
        raise Conflict(f"the server (pid {server.pid}) belongs to another user") from error
    deadline = time.monotonic() + LIMITS.stop_timeout_s
    while is_alive(server.pid):
        if time.monotonic() > deadline:
            message = f"the server (pid {server.pid}) is still draining its requests"
            raise Conflict(message)
        time.sleep(LIMITS.poll_interval_s)
    return server


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # no /proc on this system
    return state.rpartition(")")[2].split()[0] != "Z"
