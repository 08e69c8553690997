from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.errors import ConfigError, HomeLocked, StorageError
from llmos.storage import home
from llmos.storage.home import Home, open_home


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_run_makes_everything_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened = open_home(tmp_path / "deep" / "home")
    finally:
        os.umask(old)
    for path in [opened.path, *opened.path.rglob("*")]:
        assert _mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert opened.token.startswith("llmos_")
    assert len(opened.token) > 40
    opened.close()


def test_the_token_stays_and_is_made_private_again(opened: Home) -> None:
    token = opened.token
    opened.close()
    (opened.path / "token").chmod(0o644)
    again = open_home(opened.path)
    assert again.token == token
    assert _mode(opened.path / "token") == 0o600
    again.close()


def test_a_useless_token_is_refused(opened: Home) -> None:
    opened.close()
    (opened.path / "token").write_text("short\n")
    with pytest.raises(ConfigError, match="no usable token"):
        open_home(opened.path)


HOLD = """
import sys
from pathlib import Path
from llmos.storage.home import open_home
home = open_home(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_server_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HomeLocked, match=f"pid {other.pid}"):
            open_home(tmp_path)
        other.kill()
    open_home(tmp_path).close()


def test_leftovers_of_dead_runs_go_and_models_stay(opened: Home) -> None:
    read_only = opened.scratch / "pull-1" / "sub"
    read_only.mkdir(parents=True)
    (read_only / "x").write_text("x")
    read_only.chmod(0o500)
    read_only.parent.chmod(0o500)
    (opened.uploads / "u").mkdir()
    (opened.scratch / "file").write_text("x")
    (opened.scratch / "link").symlink_to(opened.models)
    (opened.models / "mdl").mkdir()
    (opened.cache / "mdl").mkdir()
    opened.close()
    again = open_home(opened.path)
    assert list(again.scratch.iterdir()) == []
    assert list(again.uploads.iterdir()) == []
    assert (again.models / "mdl").is_dir()
    assert (again.cache / "mdl").is_dir()
    again.close()


def test_a_newer_layout_is_refused(opened: Home) -> None:
    opened.close()
    (opened.path / "format").write_text(f"{home.FORMAT + 1}\n")
    with pytest.raises(ConfigError, match="newer LLMOS"):
        open_home(opened.path)


@pytest.mark.parametrize("text", ["", "one", "-1", "²"])
def test_a_damaged_stamp_is_refused(opened: Home, text: str) -> None:
    opened.close()
    (opened.path / "format").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        open_home(opened.path)


def test_an_older_layout_is_upgraded_once(opened: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.close()
    (opened.path / "format").write_text("0\n")
    with pytest.raises(ConfigError, match="cannot upgrade"):
        open_home(opened.path)
    seen: list[Path] = []
    monkeypatch.setitem(home.UPGRADES, 0, seen.append)
    open_home(opened.path).close()
    open_home(opened.path).close()
    assert seen == [opened.path]


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        open_home(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    with pytest.raises(StorageError):
        open_home(tmp_path / "home")
