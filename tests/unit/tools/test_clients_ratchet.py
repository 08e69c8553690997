"""What clients of other people passed once is kept, and their versions are pinned."""

from __future__ import annotations

from tools import engine_venv
from tools.clients.__main__ import FOLDER, PACKAGES, SUITES, lost_of


def test_what_passed_and_does_not_is_lost() -> None:
    before = {"tests": {"a": "pass", "b": "pass", "c": "fail", "d": "pass"}}
    assert lost_of(before, {"a": "pass", "b": "fail", "c": "fail"}) == ["b", "d"]
    assert lost_of({}, {"a": "pass"}) == []


def test_every_client_is_pinned_and_every_suite_is_there() -> None:
    pinned = dict(wanted.split("==") for wanted in engine_venv.requirements("clients"))
    assert set(pinned) <= set(PACKAGES)
    assert all((FOLDER / suite).is_file() for suite in SUITES)
