"""`llmos eval harness`: a task of one's own against the real server, without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.server import Server

STAND_IN = Path(__file__).with_name("stand_in")
ROWS = [
    {"question": f"{prompt},", "choices": choices, "answer": answer}
    for prompt, choices, answer in (
        ("One, two", ["three", "zebra"], 0),
        ("Once upon a", ["time", "rust"], 0),
        ("The cat and the", ["qx", "dog"], 1),
        ("Good", ["of", "morning"], 0),
    )
]


def task(folder: Path) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    config = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config), "utf-8")
    return folder


def harness(server: Server, folder: Path, *args: str, stand_in: bool) -> Any:
    env = {
        **os.environ,
        "LLMOS_URL": server.url,
        "LLMOS_API_KEY": server.token,
        "HF_HOME": str(folder / "hf"),
    }
    if stand_in:
        env["PYTHONPATH"] = os.pathsep.join((str(STAND_IN), *sys.path))
    command = ("llmos.cli.main", "eval", "harness", "-m", "pilot", "--include", str(folder))
    return subprocess.run(
        [sys.executable, "-m", *command, *args],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def figures(done: Any) -> dict[str, float]:
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, float] = json.loads(done.stdout)["results"]["mine"]
    return results


def test_a_task_of_ones_own_is_asked_and_told(server: Server, tmp_path: Path) -> None:
    folder, args = task(tmp_path), ("--tasks", "mine", "--json")
    out = tmp_path / "out.json"
    done = harness(server, folder, *args, "-o", str(out), stand_in=True)
    told = figures(done)["acc"]
    assert told in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert json.loads(out.read_text())["results"]["mine"]["acc,none"] == told
    few = harness(server, folder, *args, "--limit", "1", stand_in=True)
    assert figures(few)["acc"] == 1.0
    refused = harness(server, folder, "--tasks", "other", stand_in=True)
    assert refused.returncode != 0
    assert "has no task 'other'" in refused.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'llmos[harness]'"
)
def test_the_harness_itself_comes_to_the_same(server: Server, tmp_path: Path) -> None:
    folder, args = task(tmp_path), ("--tasks", "mine", "--json")
    ours = figures(harness(server, folder, *args, stand_in=True))
    theirs = figures(harness(server, folder, *args, stand_in=False))
    assert theirs["acc"] == ours["acc"]
