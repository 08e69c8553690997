"""The newcomer's benchmark: what it waits for, and what it carries over from this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_newcomer import LINK, STEPS, NotInTime, environment, free_port, until


def test_it_waits_for_what_comes_and_not_for_what_cannot() -> None:
    assert until("x", iter([0, 0, 7]).__next__, 5.0, lambda: True) == 7
    with pytest.raises(NotInTime, match="ended"):
        until("x", lambda: None, 5.0, lambda: False)
    with pytest.raises(NotInTime, match="not after"):
        until("x", lambda: None, 0.0, lambda: True)


def test_nothing_of_ours_is_carried_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMOS_HOME", "/mine")
    monkeypatch.setenv("VIRTUAL_ENV", "/mine/.venv")
    monkeypatch.setenv("PATH", "/mine/.venv/bin:/usr/bin")
    made = environment(tmp_path, cached=False)
    assert made["PATH"] == "/usr/bin"
    assert not {"LLMOS_HOME", "VIRTUAL_ENV"} & made.keys()
    assert made["PIP_NO_CACHE_DIR"] == "1"
    assert "PIP_NO_CACHE_DIR" not in environment(tmp_path, cached=True)


def test_the_link_is_found_in_what_the_server_prints() -> None:
    text = f"Console: http://127.0.0.1:{free_port()}/login#key=llmos_abc-d\nnext"
    found = LINK.search(text)
    assert found is not None
    assert found.group().endswith("#key=llmos_abc-d")
    assert len(STEPS) == 5
