"""`llmos eval` and `llmos pipeline`: files and flags to what is submitted, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos.cli.evalrun import plan, text_of
from llmos.cli.harness import _figures, run_harness
from llmos.cli.main import main
from llmos.errors import InvalidRequest, PluginError


def test_flags_win_over_a_file_and_data_are_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text("kind: classify\nmodel: a\ndata: test.csv\nlabels: [yes, no]\n", "utf-8")
    planned = plan(path, {"model": "b"}, None)
    assert planned.data == tmp_path / "test.csv"
    assert planned.spec == {
        "kind": "classify",
        "model": "b",
        "labels": ["yes", "no"],
        "format": "csv",
    }
    assert plan(path, {}, "other.parquet").spec["format"] == "parquet"


def test_a_corpus_is_found_as_data_are(tmp_path: Path) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text("kind: retrieve\nmodel: a\ndata: q.jsonl\ncorpus: all.csv\n", "utf-8")
    planned = plan(path, {}, None)
    assert planned.corpus == tmp_path / "all.csv"
    assert planned.spec["corpus_format"] == "csv"
    assert plan(path, {}, None, "other.parquet").spec["corpus_format"] == "parquet"
    with pytest.raises(InvalidRequest, match="classify searches no corpus"):
        plan(path, {"kind": "classify"}, None)


@pytest.mark.parametrize(
    ("kind", "name", "form"),
    [
        ("qa", "squad.json", "squad"),
        ("ner", "a.txt", "conll"),
        ("perplexity", "a.txt", "text"),
        ("classify", "a.txt", "lines"),
        ("classify", "a.xyz", None),
    ],
)
def test_a_format_is_told_by_a_files_name(kind: str, name: str, form: str | None) -> None:
    assert plan(None, {"kind": kind, "model": "m"}, name).spec.get("format") == form


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("kind: classify\nmodel: m\n", "there are no examples"),
        ("kind: classify\nmodel: m\ndata: [a]\n", "'data' is the path"),
        ("kind: clasify\nmodel: m\ndata: a.csv\n", "Invalid enum value"),
        ("model: m\ndata: a.csv\n", "required field `kind`"),
        ("- a\n", "holds no evaluation"),
    ],
)
def test_what_is_no_evaluation_is_refused_before_anything_is_sent(
    tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidRequest, match=match):
        plan(path, {}, None)


def test_flags_that_are_no_pairs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["eval", "run", "--kind", "classify", "-m", "m", "--data", "a.csv"]
    assert main([*args, "--min", "accuracy"]) == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err
    assert main([*args, "--min", "accuracy=high"]) == 2
    assert "could not convert" in capsys.readouterr().err


def test_a_pipeline_that_is_none_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("steps:\n  a: {program: x, needs: [b]}\n", "utf-8")
    assert main(["pipeline", "run", str(path)]) != 0
    assert "needs 'b', which is none" in capsys.readouterr().err


def test_outputs_are_tables_with_the_gates_reasons() -> None:
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "higher_is_better": True, "against": 0.25}
    difference = {"value": 0.25, "low": None, "high": None, "p_value": 0.01, "test": "x"}
    outputs: dict[str, Any] = {
        "kind": "classify",
        "model": "m:2",
        "against": "m:1",
        "examples": 9,
        "rejected": 1,
        "failed": 0,
        "confidence": 0.95,
        "score": "accuracy",
        "scores": {"accuracy": {**row, "difference": difference}},
        "slices": [{"column": "c", "value": "x", "examples": 4, "score": None}],
        "notes": ["look"],
        "gate": {"passed": False, "checks": [{"passed": False, "reason": "too bad"}]},
    }
    lines = text_of(outputs).splitlines()
    assert lines[0] == "classify  m:2  9 examples, 1 without an answer, 0 left out"
    assert lines[2].split() == ["accuracy", "0.5", "0.4", "to", "0.6", "0.25", "0.25", "-", "0.01"]
    assert lines[-3:] == ["gate: NOT passed", "  no  too bad", "note: look"]


def harness(**fields: Any) -> None:
    given: dict[str, Any] = {
        "include": None,
        "chat": False,
        "tokenizer": None,
        "limit": None,
        "shots": None,
        "concurrent": 1,
        "out": None,
        "as_json": False,
    }
    run_harness("m", fields.pop("tasks", ["t"]), **(given | fields))


def test_the_harness_without_its_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(PluginError, match=r"pip install 'llmos\[harness\]'"):
        harness()


def test_the_harness_wants_tasks_and_a_folder_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is no folder"):
        harness(include=tmp_path / "nowhere")
    with pytest.raises(InvalidRequest, match="name a task"):
        harness(tasks=[])


def test_its_figures_are_plain() -> None:
    row = {"acc,none": 0.5, "alias": "t", "acc_stderr,none": 0.1, "done": True}
    assert json.loads(json.dumps(_figures(row))) == {"acc": 0.5, "acc_stderr": 0.1}
