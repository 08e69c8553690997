"""The program on the page docs/programs.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.program import ProgramEntry, Yielded
from tests.unit.programs.fake_context import FakeContext


@pytest.fixture
def page(repository: Path) -> dict[str, Any]:
    text = (repository / "docs" / "programs.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "programs.md", "exec"), names)
    return names


def test_the_example_counts_and_continues(page: dict[str, Any], tmp_path: Path) -> None:
    assert isinstance(page["ENTRY"], ProgramEntry)
    (tmp_path / "text").write_text("one two\nthree\nfour five six\n")
    files = {"text": str(tmp_path / "text")}
    ctx = FakeContext(tmp_path, {}, files)
    assert page["CountWords"]().run(ctx) == {"words": 6}
    first = FakeContext(tmp_path, {}, files)

    def progress(done: float, **_: Any) -> None:
        first.should_yield = done == 2

    first.progress = progress  # type: ignore[method-assign, assignment]
    with pytest.raises(Yielded):
        page["CountWords"]().run(first)
    (tmp_path / "kept").write_bytes(first.checkpoints[0])
    again = FakeContext(tmp_path, {}, files, attempt=2, resumed_from=str(tmp_path / "kept"))
    assert page["CountWords"]().run(again) == {"words": 6}
