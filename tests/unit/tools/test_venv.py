from __future__ import annotations

from pathlib import Path

import pytest

from tools import venv


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(venv, "ROOT", tmp_path)
    monkeypatch.setattr(venv, "VENV", tmp_path / ".venv")
    return tmp_path


def test_nothing_is_fresh_at_first(place: Path) -> None:
    assert not venv.is_fresh("run", venv.digest())


def test_dev_includes_run_and_not_the_reverse(place: Path) -> None:
    (place / ".venv" / ".dev.stamp").write_text(venv.digest())
    assert venv.is_fresh("run", venv.digest())
    (place / ".venv" / ".dev.stamp").rename(place / ".venv" / ".run.stamp")
    assert not venv.is_fresh("dev", venv.digest())


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_the_requirements_is_noticed(place: Path, name: str) -> None:
    (place / ".venv" / ".dev.stamp").write_text(venv.digest())
    (place / name).write_text("something else")
    assert not venv.is_fresh("dev", venv.digest())


def test_a_fresh_environment_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".venv" / ".run.stamp").write_text(venv.digest())
    monkeypatch.setattr(venv, "create", lambda: pytest.fail("made again"))
    assert venv.main(["run"]) == 0


def test_an_old_python_is_refused_with_the_way_out(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(venv.sys, "version_info", (3, 9, 2))
    assert venv.main(["run"]) == 1
    assert "make PYTHON=" in capsys.readouterr().err
