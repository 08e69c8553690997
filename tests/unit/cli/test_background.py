"""Servers in the background: started, found, stopped; with a stand-in for the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.cli import background
from llmos.cli.config import CLIConfig
from llmos.errors import ServerUnreachable
from tests.unit.cli.conftest import Run

FAKE = """
import http.server, json, os, pathlib, signal, socketserver, sys
home = pathlib.Path(sys.argv[1])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"ok": True, "models": []}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "local"

server = socketserver.UnixStreamServer(str(home / "api.sock"), Handler)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
(home / "server.json").write_text(json.dumps({"url": "http://x", "pid": os.getpid()}))
server.serve_forever()
"""

Spawn = Callable[[str], None]


@pytest.fixture
def spawn_as(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawn]:
    """What `start_server` starts instead of a real server: the given program."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def use(program: str) -> None:
        def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
            assert command[1:5] == ["-P", "-m", "llmos.cli.main", "serve"]
            assert options["start_new_session"] is True
            home_given = command[command.index("--home") + 1]
            process = real([sys.executable, "-c", program, home_given, *command[7:]], **options)  # type: ignore[call-overload]
            started.append(process)
            return process

        monkeypatch.setattr(background.subprocess, "Popen", popen)

    yield use
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path))
    return tmp_path


def test_a_server_is_started_found_and_stopped(llmos: Run, home: Path, spawn_as: Spawn) -> None:
    spawn_as(FAKE)
    background.ensure_server()
    assert background.answers(home)
    pid = json.loads((home / "server.json").read_text())["pid"]
    assert os.getsid(pid) == pid  # it outlives our terminal
    assert (home / "logs" / "serve.log").stat().st_mode & 0o777 == 0o600

    background.ensure_server()  # one is there: nothing is started
    assert json.loads((home / "server.json").read_text())["pid"] == pid

    done = llmos("stop", "--json")
    assert done.json["stopped"]["pid"] == pid
    assert not background.is_alive(pid)


def test_a_home_that_is_made_is_for_its_owner_alone(home: Path, spawn_as: Spawn) -> None:
    spawn_as(FAKE)
    fresh = home / "some" / "home"
    background.start_server(fresh)
    assert fresh.stat().st_mode & 0o777 == 0o700
    assert (fresh / "logs").stat().st_mode & 0o777 == 0o700


def test_a_server_that_dies_shows_the_end_of_its_log(
    home: Path, spawn_as: Spawn, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / "logs").mkdir()
    (home / "logs" / "serve.log").write_text("an old story\n")
    spawn_as("import sys; print('bad \\x1b[31m port', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ServerUnreachable, match="did not start"):
        background.start_server(home)
    shown = capfd.readouterr().err
    assert "bad \\x1b[31m port" in shown
    assert "an old story" not in shown


def test_a_port_that_is_taken_is_no_reason_to_give_up(
    home: Path, spawn_as: Spawn, capfd: pytest.CaptureFixture[str]
) -> None:
    taken = "error: cannot listen on 127.0.0.1:8400: another program listens there"
    spawn_as(f"import sys\nif '--port' not in sys.argv: sys.exit({taken!r})\n{FAKE}")
    background.start_server(home)
    assert background.answers(home)
    assert "cannot listen on 127.0.0.1:8400" in capfd.readouterr().err


def test_a_server_that_never_answers_is_given_up(
    home: Path, spawn_as: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "LIMITS", CLIConfig(start_timeout_s=0.2))
    spawn_as("import threading; threading.Event().wait()")
    with pytest.raises(ServerUnreachable, match="in time"):
        background.start_server(home)


def test_a_rival_starting_the_same_home_is_waited_for(
    home: Path, spawn_as: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours finds the home locked; theirs answers a moment later."""
    seen = iter([False, False, False])
    monkeypatch.setattr(background, "answers", lambda _: next(seen, True))
    spawn_as("import sys; sys.exit('error: held (home_locked)')")
    background.start_server(home)


def test_a_server_named_by_url_is_never_started(
    home: Path, spawn_as: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOS_URL", "http://127.0.0.1:1")
    spawn_as("raise SystemExit('must not run')")
    background.ensure_server()
    assert not (home / "logs").exists()


def test_stop_believes_no_pid_while_nobody_answers(llmos: Run, home: Path) -> None:
    (home / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    done = llmos("stop")
    assert done.code == 1
    assert "no server runs" in done.err


def test_a_process_that_ended_unreaped_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # until its end
    process.stdout.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not background.is_alive(process.pid)
    process.wait()
    assert not background.is_alive(process.pid)
    assert background.is_alive(os.getpid())
