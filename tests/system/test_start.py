"""Starting, stopping and starting again: what a newcomer and an init system see."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import httpx
import openai
import pytest

from tests.system.server import Server
from tests.system.test_faults import until, worker_of


def test_secrets_are_readable_by_the_owner_alone(server: Server) -> None:
    for name in ("token", "server.json"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600
    about = json.loads((server.home / "server.json").read_text())
    assert about["pid"] == server.pid
    assert about["url"] == server.url


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_curl_line_works(server: Server) -> None:
    command = re.search(r"^  curl (?:.*\\\n)*.*$", server.log, re.MULTILINE)
    assert command is not None, server.log
    words = shlex.split(command[0].replace("\\\n", " ").replace('"pilot"', '"echo"'))
    done = subprocess.run(
        [*words, "--silent", "--show-error", "--max-time", "20"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    sent = json.loads(words[words.index("-d") + 1])["messages"][0]["content"]
    assert answer["choices"][0]["message"]["content"] == sent


def test_health_needs_no_key_and_everything_else_does(server: Server) -> None:
    with httpx.Client(base_url=server.url) as stranger:
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/readyz").json() == {"ready": True, "problems": []}
        for path in ("/v1/models", "/metrics", "/os/v1/status", "/os/v1/keys"):
            assert stranger.get(path).status_code == 401, path


def test_the_official_client_gets_an_answer(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "你好 👋🏽"}]
    )
    assert answer.choices[0].message.content == "你好 👋🏽"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len("你好 👋🏽")


def test_a_second_server_on_the_same_home_is_refused(server: Server) -> None:
    done = server.cli("serve", "--home", str(server.home), "--port", "0")
    assert done.returncode != 0
    assert str(server.pid) in done.stderr


def test_it_stops_when_asked_and_leaves_no_process(own_server: Server) -> None:
    own_server.start()
    pid = own_server.pid
    assert own_server.stop() == 0
    assert not (own_server.home / "server.json").exists()
    assert _group(pid) == []


def test_it_starts_again_after_a_power_cut_with_its_token(own_server: Server) -> None:
    own_server.start()
    token = own_server.token
    own_server.kill()
    own_server.start()
    assert own_server.token == token
    with own_server.client() as client:
        assert client.get("/v1/models").status_code == 200


def test_workers_do_not_outlive_a_killed_server(own_server: Server) -> None:
    own_server.options = ("--preload", "echo")
    own_server.start()
    with own_server.client() as client:
        pids = [w["pid"] for w in client.get("/os/v1/workers").json()["workers"]]
    assert pids
    watched = [os.pidfd_open(pid) for pid in pids]
    os.kill(own_server.pid, signal.SIGKILL)
    for fd in watched:
        assert _ended(fd, timeout_s=5.0), own_server.log
        os.close(fd)


def test_the_next_load_takes_the_worker_that_is_warm(tmp_path: Path) -> None:
    server = Server(
        tmp_path / "home", "--preload", "echo", "--set", "kernel.spare_delay_s=0", spares=True
    )
    try:
        server.start()
        with server.client() as client:
            until(lambda: _workers(client, "spare"))
            (warm,) = _workers(client, "spare")
            os.kill(worker_of(client, "echo"), signal.SIGKILL)
            until(lambda: warm in _workers(client, "serving"))
            until(lambda: worker_of(client, "echo") == warm)
        assert server.stop() == 0
    finally:
        server.kill()


def _workers(client: httpx.Client, state: str) -> list[int]:
    """Their process ids."""
    workers = client.get("/os/v1/workers").json()["workers"]
    return [w["pid"] for w in workers if w["role"] == "replica" and w["state"] == state]


def _ended(pidfd: int, timeout_s: float) -> bool:
    """True when the process has ended in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _group(pgid: int) -> list[int]:
    """Processes still in a group; zombies count."""
    found = []
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat_file.read_text().rpartition(")")[2].split()
            if int(fields[2]) == pgid:
                found.append(int(stat_file.parent.name))
    return found
