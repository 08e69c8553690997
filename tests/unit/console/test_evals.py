"""What the page Evaluate shows."""

from __future__ import annotations

import json
from typing import Any

from llmos.abi.evals import EVALUATE
from llmos.abi.jobs import JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal
from llmos.console.views import evals
from llmos.sdk.draw import scores


def _job(number: int, value: float | None, *, higher: bool = True, **row: Any) -> JobRecord:
    outputs: dict[str, Any] = {"model": f"m:{number}", "examples": 9, "score": "f1"}
    if value is not None:
        outputs["scores"] = {"f1": {"value": value, "higher_is_better": higher} | row}
    owner = Principal("prn_1", "ten_1", "ann")
    spec = JobSpec(program=EVALUATE)
    return JobRecord(f"job_{number}", owner, spec, JobState.SUCCEEDED, 0, 1, outputs=outputs)


def test_the_better_comes_first() -> None:
    found = evals.evaluations([_job(1, None), _job(2, 0.5), _job(3, 0.9)])
    assert [job.job_id for job in found] == ["job_3", "job_2", "job_1"]
    found = evals.evaluations([_job(1, 9.0, higher=False), _job(2, 5.0, higher=False)])
    assert [job.job_id for job in found] == ["job_2", "job_1"]


def test_worse_is_beyond_chance() -> None:
    def difference(low: float, high: float) -> dict[str, Any]:
        return {"value": (low + high) / 2, "low": low, "high": high}

    assert scores.worse({"difference": difference(-0.3, -0.1)})
    assert not scores.worse({"difference": difference(-0.3, 0.1)})
    assert scores.worse({"difference": difference(0.1, 0.3), "higher_is_better": False})
    assert not scores.worse({})
    job = _job(1, 0.5, low=0.4, high=0.6, difference=difference(-0.3, -0.1))
    cells = evals.cells(job, {"chip": "x"}, {"worse": "worse", "kept": "kept"})
    assert cells["change"] == {"chip": "-0.2 worse", "tone": "bad"}
    assert cells["value"] == "0.5 (0.4–0.6)"
    assert evals.scores(job)[0]["look"] == "worse"


def test_a_matrix_is_drawn_where_there_is_one() -> None:
    report = {"labels": ["<a>", "b"], "confusion": [[3, 1], [0, 4]]}
    drawn = scores.matrix(report, "t")
    assert "&lt;a&gt;" in drawn
    assert drawn.count('class="right"') == 2
    many = {"labels": ["x"] * 50, "confusion": [[0] * 50] * 50}
    flat = {"labels": ["a"], "confusion": [3]}
    partly = {"labels": ["a", "b"], "confusion": [[1, 2], None]}
    for nothing in ({}, {"labels": ["a"]}, many, flat, partly):
        assert scores.matrix(scores.read_report(json.dumps(nothing).encode()), "t") == ""
    assert scores.read_report(b"{") == {}
