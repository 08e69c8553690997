"""The command line against a real server, as a person or a script uses it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx

from tests.system.server import Server


def test_run_one_shot_stdin_and_json(server: Server) -> None:
    assert server.cli("run", "echo", "Hello 世界 🎉").stdout.strip() == "Hello 世界 🎉"
    assert server.cli("run", "echo", stdin="from a pipe").stdout.strip() == "from a pipe"
    lines = [json.loads(x) for x in server.cli("run", "echo", "ab", "--json").stdout.splitlines()]
    assert "".join(line.get("text") or "" for line in lines) == "ab"
    assert any(line.get("finish_reason") == "stop" for line in lines)


def test_a_model_cannot_paint_the_terminal(server: Server) -> None:
    out = server.cli("run", "echo", "\x1b[2Jred\x07").stdout
    assert "\x1b" not in out
    assert "red" in out


def test_looking_around(server: Server) -> None:
    assert "echo" in server.cli("ls").stdout
    shown = json.loads(server.cli("show", "pilot", "--json").stdout)
    assert "native" in json.dumps(shown)
    assert json.loads(server.cli("status", "--json").stdout)["ready"] is True
    assert "PROCESS" in server.cli("ps", "--all").stdout
    assert "api.port" in server.cli("config", "show", "--origin").stdout


def test_a_key_of_a_tenant_opens_inference_and_nothing_else(server: Server) -> None:
    made = server.cli("key", "add", "alice", "--tenant", "acme", "--json")
    secret = json.loads(made.stdout)["secret"]
    with server.client(token=secret) as alice:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert alice.post("/v1/chat/completions", json=body).status_code == 200
        assert alice.get("/os/v1/keys").status_code == 403
        assert alice.delete("/os/v1/models/echo").status_code == 403
        seen = alice.get("/os/v1/processes").json()["processes"]
        assert {process["principal"] for process in seen} == {"alice"}
        assert server.cli("key", "revoke", "alice").returncode == 0
        assert alice.get("/v1/models").status_code == 401
    database = b"".join(path.read_bytes() for path in (server.home / "db").iterdir())
    assert secret.encode() not in database


def test_pull_show_unload_rm(server: Server, test_data: Path) -> None:
    source = f"file:{test_data}/models/stories260k"
    assert server.cli("pull", source, "--name", "tale").returncode == 0
    told = server.cli("run", "tale", "Once upon a time", "--temperature", "0", "--max-tokens", "9")
    assert "little girl" in told.stdout
    held = server.cli("rm", "tale", "--yes")
    assert held.returncode == 1
    assert "unload" in held.stderr
    assert server.cli("unload", "tale").returncode == 0
    with server.client() as client:
        until_unloaded(client, "tale")
    assert server.cli("rm", "tale", "--yes").returncode == 0
    assert server.cli("show", "tale").returncode == 1


def until_unloaded(client: httpx.Client, name: str) -> None:
    for _ in range(500):
        replicas = client.get("/os/v1/replicas").json()["replicas"]
        if not any(replica["model"].startswith(name) for replica in replicas):
            return
    raise AssertionError("still loaded")


def test_errors_are_one_line_and_a_code(server: Server) -> None:
    failed = server.cli("show", "nothing-like-it")
    assert failed.returncode == 1
    assert "model_not_found" in failed.stderr
    assert server.cli("no-such-command").returncode == 2
    told = server.cli("show", "nothing", "--json")
    assert "model_not_found" in json.dumps(json.loads(told.stderr or told.stdout))


def test_secrets_are_for_the_owner_only(server: Server) -> None:
    for name, mode in (("token", 0o600), ("server.json", 0o600), ("api.sock", 0o600)):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == mode, name
    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700


def test_run_starts_a_server_by_itself_and_stop_ends_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {**os.environ, "LLMOS_HOME": str(home), "LLMOS_API__PORT": "0", "NO_COLOR": "1"}

    def llmos(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llmos", *arguments]
        return subprocess.run(
            command, env=env, input="", capture_output=True, text=True, timeout=90, check=False
        )

    try:
        first = llmos("run", "echo", "hello")
        assert first.returncode == 0, first.stderr
        assert first.stdout.strip() == "hello"
        assert llmos("stop").returncode == 0
        assert not (home / "server.json").exists()
    finally:
        if (home / "server.json").exists():
            os.kill(json.loads((home / "server.json").read_text())["pid"], signal.SIGKILL)
