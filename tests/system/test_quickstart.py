"""The notebook that a newcomer opens: every cell runs, and draws what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, missing

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        assert cell["metadata"] == {}
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A home of its own, whose server the notebook starts; Jupyter's files lie there as well."""
    folders = ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")
    made = {name: str(tmp_path / name.lower()) for name in (*folders, "LLMOS_HOME")}
    made |= {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    yield made
    stop = [sys.executable, "-m", "llmos", "stop"]
    subprocess.run(stop, check=False, capture_output=True, timeout=60)
    shutil.rmtree(tmp_path / "llmos_home", ignore_errors=True)


def _run(notebook: Any) -> None:
    import nbclient

    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", extra_arguments=["--log-level=40"]
    )
    client.execute()


def _html(notebook: Any) -> list[str]:
    return [
        output["data"]["text/html"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]


@pytest.mark.timeout(600)
# of Jupyter's own, at the end of the interpreter and of its sockets
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_every_cell_runs_and_draws(environment: dict[str, str]) -> None:
    try:
        import nbformat
    except ImportError:
        missing("no nbclient: pip install 'llmos[dev]'")
    assert os.environ["LLMOS_HOME"] == environment["LLMOS_HOME"]
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    _run(notebook)
    drawn = _html(notebook)
    for said in (
        'class="chip good">ready',  # the server
        "sentiment:1",  # the models
        "operating system",  # the answers
        'class="beside"',
        'class="life"',  # why
        'class="labels"',  # what was found
        "succeeded",  # the task's bar
        ">loss<",  # the run
        'class="matrix"',  # the evaluation
        ">ROC<",
        'class="stack"',  # the memory
    ):
        assert any(said in one for one in drawn), said
    assert any('class="line c1"' in one for one in drawn)
