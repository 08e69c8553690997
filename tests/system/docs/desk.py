"""A reader's desk: a home, a folder of files, a server, and a shell to type commands into.

Servers at other places are played by a second one of ours, the hub by its stand-in. A command that
runs until it is interrupted (`STAYS`) is interrupted once it has said that it is at work.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llmos.sdk import Client
from tests.system.docs.blocks import ROOT, Block, Command, blocks, pages
from tests.system.docs.files import PILOT, furnish
from tests.system.docs.subjects import Subjects
from tests.system.server import Server
from tests.system.test_jobs import QUICK
from tests.unit.registry.hub_server import Hub, serve

PATIENCE_S = 100.0
"""Of one command; others may be at work on this machine."""

STAYS = re.compile(r"llmos (?:serve|logs -f)\b")
TALKS = re.compile(r"llmos run \S+\s*(?:#.*)?\Z")
"""A chat: it wants a terminal, and ends with Ctrl-D."""

SETS = re.compile(
    r"(?:export )?[A-Z_]+=(?:\S+|\"[^\"]*\"|\$\([^)]*\))(?: [A-Z_]+=\S+)*\s*(?:#.*)?\Z"
)
REPOSITORIES = ("org/name", "Qwen/Qwen3-0.6B")
SECRETS = ("FAR_KEY", "THEIR_API_KEY")


class Failed(AssertionError):
    """A command did not do what its page says; the message has all that it said."""


@dataclass
class Desk:
    """`run` types in one command. What a page sets, its later commands have."""

    user: Path
    folder: Path
    server: Server
    far: Server
    subjects: Subjects
    done: set[str] = field(default_factory=set)
    """Long commands that have been run: word for word the same need not be again."""

    _set: list[str] = field(default_factory=list)
    _num_served: int = 0

    def begin(self) -> None:
        """A page: nothing is set, nothing lives."""
        self._set = []
        self.subjects.clear()

    def put(self, block: Block) -> None:
        """A file that the page shows."""
        (self.folder / block.file).write_text(self._here(block.body), "utf-8")

    def run(self, command: Command) -> str:
        """What it prints. Raises Failed unless it ends well."""
        text = command.text
        if SETS.fullmatch(text):
            self._set.append(text)
            return ""
        if text.startswith("make "):
            return self._ended(f"make --dry-run {text.removeprefix('make ')}", ROOT)
        typed = self.subjects.fill(text) if "llmos " in text else text
        typed = self._here(typed)
        if STAYS.match(text):
            return self._interrupted(typed)
        if TALKS.match(text):
            return self._talked(typed)
        return self._ended("\n".join([*self._set, typed]), self.folder)

    def python(self, block: Block) -> str:
        """A program that a page shows."""
        (self.folder / "shown.py").write_text(self._here(block.body), "utf-8")
        return self._ended("python shown.py", self.folder)

    def _here(self, text: str) -> str:
        """What is at the addresses of the pages."""
        text = text.replace("127.0.0.1:8400", self.server.url.removeprefix("http://"))
        text = text.replace("127.0.0.1:9000", self.far.url.removeprefix("http://"))
        return re.sub("#(MODEL|some-model)", "#echo", text)

    def _talked(self, typed: str) -> str:
        person, terminal = pty.openpty()
        try:
            os.write(person, b"hello\n\x04")
            return self._ended(typed, self.folder, terminal)
        finally:
            os.close(terminal)
            os.close(person)

    def _ended(self, typed: str, folder: Path, stdin: int = subprocess.DEVNULL) -> str:
        try:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", typed],
                cwd=folder,
                env=self._env(),
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{typed}\ndid not end in {PATIENCE_S} s:\n{error.output}") from error
        if done.returncode or "Traceback" in done.stderr:
            raise Failed(f"{typed}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _interrupted(self, typed: str) -> str:
        self._num_served += 1
        log = self.folder / f"stays-{self._num_served}.log"
        env = self._env()
        serves = typed.startswith("llmos serve")
        if serves:  # beside the other one
            home = self.user / f"home-{self._num_served}"
            env |= {"LLMOS_HOME": str(home), "LLMOS_API__PORT": "0"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {typed}"],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until(process, log, b"http" if serves else b"\n")
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        said = log.read_text("utf-8", "replace")
        if code not in {0, 130} or "Traceback" in said:
            raise Failed(f"{typed}\ninterrupted, ended with {code}:\n{said}")
        return said

    def _env(self) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in ("LANG", "LLMOS_TEST_DATA") if name in os.environ
        }
        return kept | {
            "HOME": str(self.user),
            "PATH": f"{self.user / 'bin'}:{os.environ['PATH']}",
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "default",
        }


def _wait_until(process: subprocess.Popen[bytes], log: Path, said: bytes) -> None:
    """Raises Failed when it ends before it has said so."""
    deadline = time.monotonic() + PATIENCE_S
    while said not in log.read_bytes():
        try:
            code = process.wait(0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise Failed(f"said too little in {PATIENCE_S} s:\n{log.read_text()}") from None
        else:
            raise Failed(f"ended by itself with {code}:\n{log.read_text()}")


def _tools(folder: Path) -> None:
    """`llmos` and `python` are those that run this test."""
    folder.mkdir(parents=True)
    for name, words in (("llmos", " -m llmos.cli.main"), ("python", "")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n', "utf-8")
        path.chmod(0o755)


def _hub() -> Iterator[Hub]:
    with serve() as hub:
        for name in REPOSITORIES:
            hub.add(name, PILOT)
        yield hub
        hub.release.set()


@contextmanager
def opened(root: Path) -> Iterator[Desk]:
    """A desk with its servers running; they have stopped well when it is put away."""
    user, folder = root / "user", root / "user" / "folder"
    _tools(user / "bin")
    furnish(folder)
    for page in pages():  # some speak of what another one shows
        for block in blocks(page):
            if block.file:
                (folder / block.file).write_text(block.body, "utf-8")
    with ExitStack() as stack:
        hub = stack.enter_context(contextmanager(_hub)())
        far = Server(user / "far", "--preload", "echo").start()
        stack.callback(far.kill)
        options = ("--preload", "pilot", *QUICK, "--set", f"registry.hub_endpoint={hub.url}")
        env = dict.fromkeys(SECRETS, far.token)
        server = Server(user / ".llmos", *options, env=env, spares=True).start()
        stack.callback(server.kill)
        client = stack.enter_context(Client(server.url, server.token))
        yield Desk(user, folder, server, far, Subjects(client))
        for job in client.jobs.list(state="live").jobs:
            client.jobs.cancel(job.job_id)
        client.close()
        assert server.stop() == 0, server.log
        assert far.stop() == 0, far.log
