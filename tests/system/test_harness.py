"""`llmos eval harness`: a task of one's own against the real server, without a network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from llmos.cli.main import main
from tests.conftest import missing
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


class Asked(NamedTuple):
    """`llmos eval harness` in this process, with a harness that stands in."""

    capsys: pytest.CaptureFixture[str]
    folder: Path

    def run(self, *args: str) -> int:
        return main(["eval", "harness", "-m", "pilot", "--include", str(self.folder), *args])

    def figures(self, *args: str) -> dict[str, float]:
        assert self.run(*args, "--json") == 0
        results: dict[str, float] = json.loads(self.capsys.readouterr().out)["results"]["mine"]
        return results


@pytest.fixture
def asked(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Asked:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("LLMOS_URL", server.url)
    monkeypatch.setenv("LLMOS_API_KEY", server.token)
    return Asked(capsys, task(tmp_path))


def test_a_task_of_ones_own_is_asked_and_told(asked: Asked, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    told = asked.figures("--tasks", "mine", "-o", str(out))["acc"]
    assert told in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert json.loads(out.read_text())["results"]["mine"]["acc,none"] == told
    assert asked.figures("--tasks", "mine", "--limit", "1")["acc"] == 1.0
    assert asked.run("--tasks", "other") != 0
    assert "has no task 'other'" in asked.capsys.readouterr().err


@pytest.mark.timeout(600)
def test_the_harness_itself_comes_to_the_same(server: Server, asked: Asked, tmp_path: Path) -> None:
    try:
        importlib.metadata.distribution("lm_eval")  # the stand-in can be imported, but is none
    except importlib.metadata.PackageNotFoundError:
        missing("needs pip install 'llmos[harness]'")
    command = ("llmos.cli.main", "eval", "harness", "-m", "pilot", "--include", str(asked.folder))
    done = subprocess.run(
        [sys.executable, "-m", *command, "--tasks", "mine", "--json"],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = json.loads(done.stdout)["results"]["mine"]
    assert theirs["acc"] == asked.figures("--tasks", "mine")["acc"]
