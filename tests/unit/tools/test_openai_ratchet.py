"""What openai-python's tests passed once is kept: the list is whole, and nothing slips from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tools.openai_tests import SUITES, lost_of, pinned


def test_what_passed_and_does_not_is_lost() -> None:
    before = {"openai": "1", "tests": {"a": "pass", "b": "pass", "c": "fail", "d": "pass"}}
    now = {"a": "pass", "b": "fail", "c": "fail", "e": "pass"}
    assert lost_of(before, "1", now) == ["b", "d"]
    assert lost_of(before, "2", now) == []
    assert lost_of({}, "1", now) == []


def test_the_list_is_of_the_pinned_version_and_of_every_suite(repository: Path) -> None:
    kept = json.loads((repository / "tests" / "ratchet" / "openai.json").read_text())
    assert kept["openai"] == pinned()
    assert set(kept["tests"].values()) <= {"pass", "fail", "skip"}
    for suite in SUITES:
        passed = [n for n, how in kept["tests"].items() if n.startswith(suite) and how == "pass"]
        assert passed, suite
    assert not [name for name in kept["tests"] if not re.match(r"tests/api_resources/", name)]
