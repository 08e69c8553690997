"""Loaded into openai-python's own test run: sets the key, writes down what became of each test."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

outcomes: dict[str, str] = {}


def pytest_collection_finish(session: Any) -> None:
    """Their conftest names a key; it is read when the first client is made, which is later."""
    for plugin in session.config.pluginmanager.get_plugins():
        if hasattr(plugin, "api_key") and hasattr(plugin, "admin_api_key"):
            plugin.api_key = os.environ["LLMOS_TEST_KEY"]


def pytest_runtest_logreport(report: Any) -> None:
    """A test has passed when its call did, and neither setup nor teardown failed."""
    if report.failed:
        outcomes[report.nodeid] = "fail"
    elif report.when == "call" or report.skipped:
        outcomes.setdefault(report.nodeid, "skip" if report.skipped else "pass")


def pytest_sessionfinish() -> None:
    """For the caller to read."""
    Path(os.environ["LLMOS_TEST_OUTCOMES"]).write_text(json.dumps(outcomes))
