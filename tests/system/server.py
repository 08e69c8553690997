"""A real `llmos serve` in a process group of its own, and clients that talk to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

NO_SPARES = {"LLMOS_KERNEL__WARM_SPARE": "false"}
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02


class Server:
    """One `llmos serve` over `home`. `start` returns when `/readyz` says yes.

    `options` are further arguments of `serve`; `env` is added to a clean environment. The log is
    kept in `log_path` beside the home and is part of every failure's message. `launcher` goes
    before the command and replaces itself by it; `served` is the home as the command sees it.
    `spares`: after a load it warms a worker for the next one, for which it imports the engine once
    more: seconds of a core that a test has no use for unless it speaks of them.
    """

    def __init__(
        self,
        home: Path,
        *options: str,
        env: dict[str, str] | None = None,
        launcher: Sequence[str] = (),
        served: Path | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        spares: bool = False,
    ) -> None:
        self.home = home
        self.served = served or home
        self._launcher = list(launcher)
        self.options = options
        self.log_path = home.with_name(home.name + ".log")
        self.url = ""
        self.token = ""
        self._env = ({} if spares else NO_SPARES) | (env or {})
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_started(self) -> bool:
        return self._process is not None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Server:
        """Raises AssertionError with the log when the server ends or is not ready in time."""
        (self.home / "server.json").unlink(missing_ok=True)
        inherited = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
        }
        command = [*self._launcher, sys.executable, "-m", "llmos.cli.main", "serve"]
        command += ["--home", str(self.served), "--port", "0", *self.options]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited, "OMP_NUM_THREADS": "1", **self._env},
                start_new_session=True,
            )
        deadline = time.monotonic() + self._ready_timeout_s
        while not self._is_ready():
            self._pause()
            assert time.monotonic() < deadline, f"not ready in time:\n{self.log}"
        return self

    def _is_ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, httpx.TransportError):
            self.url = json.loads((self.home / "server.json").read_text())["url"]
            self.token = (self.home / "token").read_text().strip()
            return httpx.get(self.url + "/readyz", timeout=5.0).status_code == 200
        return False

    def _pause(self) -> None:
        """Wait a moment, or fail at once when the process ends."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(POLL_S)
            pytest.fail(f"llmos serve ended with {code}:\n{self.log}")

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Signal the server, then kill whatever is left of its process group. The exit status."""
        assert self._process is not None
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sig)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not stop in {STOP_TIMEOUT_S} s:\n{self.log}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """Power off: the whole process group at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """An httpx client with the admin token, or with `token`."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        options.setdefault("timeout", 60.0)
        return httpx.Client(base_url=self.url, headers=headers, **options)

    def openai(self, token: str | None = None, **options: Any) -> openai.OpenAI:
        """The official client, without retries."""
        options.setdefault("max_retries", 0)
        options.setdefault("timeout", 60.0)
        return openai.OpenAI(base_url=self.url + "/v1", api_key=token or self.token, **options)

    def cli(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `llmos ARGUMENTS` against this server's home."""
        env = {**os.environ, "LLMOS_HOME": str(self.served), "NO_COLOR": "1", "COLUMNS": "200"}
        return subprocess.run(
            [*self._launcher, sys.executable, "-m", "llmos.cli.main", *arguments],
            input=stdin if stdin is not None else "",
            env=env,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
