"""One home under the storm: lives one after another, each ended by a kill or a power cut."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.storm import hook
from tests.storm.history import Writer
from tests.storm.powerloss import Disk
from tests.storm.zygote import MUTANT

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 60.0


class Stuck(AssertionError):
    """A life did not do in time what every life must: begin, end when it is done."""


class Zygote:
    """The process whose forks are the lives. `env` is added to a clean environment."""

    def __init__(
        self, kind: str, log: Path, env: dict[str, str], mutant: Path | None, src: Path | None
    ) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        extra = {MUTANT: str(mutant)} if mutant is not None else {}
        extra |= {"PYTHONPATH": str(src)} if src is not None else {}
        self.log = log
        with log.open("ab") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.storm.zygote", kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=ROOT,
                env={**inherited, "OMP_NUM_THREADS": "1", **env, **extra},
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._out.fileno(), False)
        self._rest = b""

    def order(self, order: dict[str, Any]) -> None:
        self._in.write(json.dumps(order).encode() + b"\n")
        self._in.flush()

    def hear(self, timeout_s: float) -> dict[str, Any] | None:
        """The next thing said, None after `timeout_s`."""
        until_s = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([self._out], [], [], left_s)[0]:
                return None
            data = self._out.read()
            if data == b"":
                raise Stuck(f"the zygote is gone:\n{self.tail()}")
            self._rest += data or b""
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        self._out.close()


class Cell:
    """A folder with a home, its histories and its log. `library`: of the power cuts, if any.
    `src`: a copy of the sources to run, so that a long hunt sees no edit."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        seed: int,
        *,
        library: Path | None = None,
        mutant: Path | None = None,
        src: Path | None = None,
        url: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.history = folder / "history"
        self.history.mkdir(exist_ok=True)
        self.tally_path = folder / "tally"
        self.tally = hook.Tally(self.tally_path)
        self.random = random.Random(seed)
        self.seed = seed
        self.url = url
        self.disk = Disk(self.home, folder / "disk", library) if library is not None else None
        self.marks = Writer(self.history / "marks", "conductor")
        env = self.disk.env if self.disk is not None else {}
        self.zygote = Zygote(kind, folder / "log", env, mutant, src)
        self.kind = kind
        self.lives = self.kills = self.cuts = 0
        self.pid = 0
        self.ended: int | None = None
        said = self.zygote.hear(READY_TIMEOUT_S)
        if said is None or "loaded" not in said:
            raise Stuck(f"nothing can be started: {said}\n{self.zygote.tail()}")

    @property
    def histories(self) -> list[Path]:
        return sorted(self.history.iterdir())

    def start(self, plan: hook.Plan, **order: Any) -> None:
        """Fork a life."""
        self.lives += 1
        self.ended = None
        made = {
            "home": str(self.home),
            "history": str(self.history / "patrons"),
            "tally": str(self.tally_path),
            "log": str(self.folder / "log"),
            "seed": self.seed,
            "life": self.lives,
            "url": self.url,
            "plan": {
                "point": plan.point,
                "hit": plan.hit,
                "act": plan.act,
                "linger_s": plan.linger_s,
            },
            **order,
        }
        self.marks.mark("start", plan.point)
        self.zygote.order(made)
        said = self.zygote.hear(READY_TIMEOUT_S)
        assert said is not None and "pid" in said, said
        self.pid = int(said["pid"])

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Until the life says so; False when it ended before."""
        return self._wait("ready", timeout_s)

    def wait_ended(self, timeout_s: float) -> bool:
        """Until the life has ended; False if it has not in time."""
        if self.ended is not None:
            return True
        until_s = time.monotonic() + timeout_s
        while self.ended is None and time.monotonic() < until_s:
            said = self.zygote.hear(max(0.0, until_s - time.monotonic()))
            if said is not None and "ended" in said:
                self.ended = int(said["status"])
        return self.ended is not None

    def _wait(self, word: str, timeout_s: float) -> bool:
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            said = self.zygote.hear(max(0.0, until_s - time.monotonic()))
            if said is None:
                break
            if "ended" in said:
                self.ended = int(said["status"])
                return False
            if word in said:
                return True
        raise Stuck(f"not {word} in {timeout_s} s:\n{self.zygote.tail()}")

    def kill(self) -> None:
        """Now, whatever it does; at its crash point it may have done so itself."""
        if self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            if not self.wait_ended(10.0):
                raise Stuck("a killed process does not end")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what it has started, too
        if self.ended != -signal.SIGKILL:
            raise Stuck(f"a life ended by itself with {self.ended}:\n{self.zygote.tail()}")
        if self.disk is not None:
            self.disk.turn()
        self.kills += 1
        self.marks.mark("kill")

    def cut(self, share: random.Random | None) -> None:
        """After a kill: the power was gone, too."""
        assert self.disk is not None
        lost = self.disk.cut(share)
        self.cuts += 1
        self.marks.mark("cut", str(lost))

    def close(self) -> None:
        if self.pid and self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait_ended(5.0)
        self.zygote.close()
        self.marks.close()
