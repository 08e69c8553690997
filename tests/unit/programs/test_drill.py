"""The drill and the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.abi.program import ProgramEntry, Yielded
from llmos.errors import InvalidRequest, QueueFull
from llmos.plugins import entry_points
from llmos.programs.catalog import PROGRAMS
from llmos.programs.drill import Drill
from llmos.worker.entry import load_entry
from tests.unit.programs.fake_context import FakeContext


def drill(folder: Path, *steps: dict[str, Any], **options: Any) -> FakeContext:
    return FakeContext(folder, {"steps": list(steps)}, **options)


def test_every_built_in_program_is_an_entry_point_that_loads() -> None:
    assert set(PROGRAMS) <= set(entry_points.names(entry_points.PROGRAMS))
    for name, entry in PROGRAMS.items():
        found = entry_points.load(entry_points.PROGRAMS, name)
        assert isinstance(found, ProgramEntry)
        assert found == entry
        assert found.name == name
        assert callable(load_entry(found.entry)().run)


def test_a_step_may_be_for_the_first_attempts_only(tmp_path: Path) -> None:
    step = {"do": "raise", "code": "queue_full", "until_attempt": 2}
    for attempt in (1, 2):
        with pytest.raises(QueueFull):
            Drill().run(drill(tmp_path, step, attempt=attempt))
    assert Drill().run(drill(tmp_path, step, attempt=3)) == {}


@pytest.mark.parametrize(
    "steps",
    [
        [{"do": "nothing known"}],
        [{"sleep": 1}],
        [{"do": "sleep", "seconds": -1}],
        [{"do": "emit", "typo": 1}],
        [{"do": "raise", "code": "print"}],
        "steps",
    ],
)
def test_a_script_that_is_none_is_refused(tmp_path: Path, steps: Any) -> None:
    with pytest.raises(InvalidRequest):
        Drill().run(FakeContext(tmp_path, {"steps": steps}))


def test_polite_steps_give_way_and_stop(tmp_path: Path) -> None:
    for step in ({"do": "sleep", "seconds": 600}, {"do": "spin", "seconds": 600}):
        ctx = drill(tmp_path, step)
        ctx.should_yield = True
        with pytest.raises(Yielded):
            Drill().run(ctx)
        ctx.stop()
        assert Drill().run(ctx) == {"stopped": True}


def test_the_same_result_has_the_same_body(tmp_path: Path) -> None:
    rows: dict[tuple[str, str], tuple[int, bytes]] = {}
    for attempt in (1, 2):
        step = {"do": "result", "num_results": 5, "size_bytes": 40}
        Drill().run(drill(tmp_path, step, attempt=attempt, rows=rows))
    assert [len(body) for _, body in rows.values()] == [40] * 5
    assert {key for _, key in rows} == {f"r{i}" for i in range(5)}


def test_spinning_takes_its_time(tmp_path: Path) -> None:
    assert Drill().run(drill(tmp_path, {"do": "spin", "seconds": 0.001})) == {}
