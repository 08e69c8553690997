"""The bundle: whole without a server, free of what was planted; the checks of a home."""

from __future__ import annotations

import json
import logging
import tarfile
from pathlib import Path

import pytest

from llmos.cli.doctor import checks
from llmos.telemetry.logs import JsonFormatter
from tests.unit.cli.conftest import Run

PLANTED = "Xq7-unguessable-Zz9"


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.split("/", 1)[1]] = file.read().decode()
        return found


@pytest.fixture
def planted(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a secret, or a prompt, in every place that a bundle looks at."""
    monkeypatch.setenv("REMOTE_API_KEY", f"env-{PLANTED}")
    monkeypatch.setenv("LLMOS_STORAGE__JOBS_URL", f"postgresql://u:{PLANTED}@db/jobs")
    (home / "token").write_text(f"tok-{PLANTED}")
    (home / "secrets").mkdir()
    (home / "secrets" / "remote").write_text(f"file-{PLANTED}\n")
    (home / "logs").mkdir()
    record = logging.makeLogRecord(
        {
            "name": "llmos.x",
            "levelname": "WARNING",
            "msg": f"refused tok-{PLANTED} in {{'content': '{PLANTED}'}}",
            "request_id": "req_7",
            "messages": [{"role": "user", "content": PLANTED}],
            "api_key": PLANTED,
        }
    )
    (home / "logs" / "llmos.log").write_text(JsonFormatter().format(record) + "\n")
    (home / "logs" / "serve.log").write_text(f"Token: tok-{PLANTED}\nBearer {PLANTED}\nready\n")
    return home


def test_a_bundle_is_whole_without_a_server_and_holds_nothing_planted(
    llmos: Run, planted: Path, tmp_path: Path
) -> None:
    path = tmp_path / "case.tar.gz"
    made = llmos("debug", "bundle", "--output", str(path), "--json")
    assert made.code == 0, made.err
    assert path.stat().st_mode & 0o777 == 0o600
    found = unpacked(path)
    assert PLANTED not in "".join(found)
    for name, body in found.items():
        assert PLANTED not in body, name
    assert {"versions.json", "settings.json", "doctor.json", "manifest.json"} <= set(found)
    assert '"request_id":"req_7"' in found["logs/llmos.log"]
    assert found["logs/serve.log"].endswith("ready\n")
    assert json.loads(found["versions.json"])["packages"]["msgspec"]
    told = made.json["parts"]
    assert told["status.json"].startswith("not here: ")
    assert "status.json" not in found
    assert json.loads(found["manifest.json"]) == told


def test_a_bundle_of_a_home_that_never_was(llmos: Run, home: Path, tmp_path: Path) -> None:
    (home / "token").unlink()
    path = tmp_path / "x.tar.gz"
    made = llmos("debug", "bundle", "-o", str(path))
    assert made.code == 0, made.err
    assert "versions.json" in unpacked(path)
    assert "logs/llmos.log: not here" in made.err


def test_a_place_that_cannot_be_written_is_said(llmos: Run, home: Path) -> None:
    refused = llmos("debug", "bundle", "-o", str(home / "none" / "x.tar.gz"), "--json")
    assert refused.code == 1
    assert refused.error["code"] == "storage_error"


def states(home: Path) -> dict[str, str]:
    return {check.name: check.state for check in checks(home)}


def test_the_checks_of_a_home(home: Path) -> None:
    home.chmod(0o700)
    (home / "token").chmod(0o600)
    (home / "format").write_text("1")
    assert states(home)["home"] == states(home)["token"] == states(home)["layout"] == "ok"
    (home / "token").chmod(0o644)
    (home / "format").write_text("999")
    home.chmod(0o755)
    found = states(home)
    assert (found["home"], found["token"], found["layout"]) == ("warning", "failed", "failed")


def test_a_database_that_is_none_is_found(home: Path) -> None:
    (home / "db").mkdir()
    (home / "db" / "llmos.db").write_bytes(b"not a database at all" * 100)
    assert states(home)["database"] == "failed"


def test_a_server_that_was_killed_is_found(home: Path) -> None:
    about = {"url": "http://127.0.0.1:1", "pid": 2**22 + 1, "started_ns": 1, "version": "0"}
    (home / "server.json").write_text(json.dumps(about))
    assert states(home)["server"] == "warning"


def test_a_failed_check_is_the_exit_code(
    llmos: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").chmod(0o600)
    assert llmos("debug", "doctor").code == 0
    monkeypatch.setenv("LLMOS_KERNEL__NO_SUCH", "1")
    failed = llmos("debug", "doctor", "--json")
    assert failed.code == 1
    assert {c["name"]: c["state"] for c in failed.json["checks"]}["settings"] == "failed"
