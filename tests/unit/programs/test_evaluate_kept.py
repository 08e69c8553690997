"""Two evaluations made apart are compared as one that asked both models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.evals import read_eval
from llmos.abi.inference import ItemsPrompt
from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest
from llmos.programs.evaluate.kept import Kept, compare_kept, read_kept
from tests.unit.programs.fake_context import echo
from tests.unit.programs.test_evaluate import (
    KIND,
    REVIEWS,
    Answerer,
    by_item,
    priced,
    run,
    sentiment,
)


def is_new(request: Generate) -> bool:
    return request.model.startswith("new")


def said(new: str, old: str) -> Answerer:
    return lambda request: msgspec.structs.replace(
        echo(request), text=new if is_new(request) else old
    )


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def priced_by(request: Generate) -> Answer:
    told = priced(request).prompt_logprobs
    if is_new(request) or told is None:
        return priced(request)
    worse = [
        msgspec.structs.replace(
            one, drawn=msgspec.structs.replace(one.drawn, logprob=2 * one.drawn.logprob)
        )
        for one in told
    ]
    return msgspec.structs.replace(echo(request), prompt_logprobs=worse)


def entities(model: str, text: str) -> list[dict[str, Any]]:
    end = 2 if model.startswith("new") else 3
    return [{"label": "ORG", "start": 0, "end": end, "text": text[:end]}]


def ranked(request: Generate) -> Answer:
    assert isinstance(request.prompt, ItemsPrompt)

    def score(model: str, item: dict[str, Any]) -> dict[str, float]:
        sign = 1 if model.startswith("new") else -1
        return {"score": sign * float("cat" in item["text"])}

    return by_item(score)(request)


REFERENCES = [{"text": f"t{n}", "reference": "the cat sat"} for n in range(8)]
CHOICES = [{"question": "2+2", "choices": ["3", "4"], "answer": int(n > 5)} for n in range(8)]
QUESTIONS = [{"question": "who?", "context": "Ada.", "answers": ["Ada Lovelace"]} for _ in range(8)]
QUERIES = [
    {"query": "cat", "documents": ["a dog", "the cat", "a bird"], "relevant": [1]} for _ in range(8)
]
CASES: dict[str, tuple[dict[str, Any], str, Answerer, str]] = {
    "classify": ({"format": "csv"}, REVIEWS, by_item(sentiment), KIND),
    "ner": (
        {"format": "conll"},
        "EU B-ORG\nrejects O\n\n" * 8,
        by_item(entities),
        "token-classification",
    ),
    "qa": ({}, lines(QUESTIONS), said("Lovelace", "Ada Lovelace"), "generate"),
    "generate": ({}, lines(REFERENCES), said("the cat sat", "the dog sat"), "generate"),
    "perplexity": ({}, lines([{"text": "a b x d"}] * 8), priced_by, "generate"),
    "choice": ({}, lines(CHOICES), said("A", "B"), "generate"),
    "retrieve": ({}, lines(QUERIES), ranked, "rerank"),
}


def evaluate(folder: Path, name: str, spec: dict[str, Any], *given: Any) -> Kept:
    folder.mkdir(exist_ok=True)
    data, answer, kind = given
    outputs, ctx = run(folder, spec, data, answer, kinds=kind)
    kept = b"\n".join(ctx.lines("examples"))
    return read_kept(name, read_eval({"model": "new", "resamples": 200, **spec}), outputs, kept)


@pytest.mark.parametrize("kind", CASES)
def test_it_is_as_if_both_had_been_asked(tmp_path: Path, kind: str) -> None:
    fields, *given = CASES[kind]
    spec = {"kind": kind, **fields}
    together, _ = run(tmp_path, {**spec, "against": "old"}, given[0], given[1], kinds=given[2])
    ours = evaluate(tmp_path / "a", "job_a", spec, *given)
    theirs = evaluate(tmp_path / "b", "job_b", {**spec, "model": "old"}, *given)
    found = compare_kept(ours, theirs)
    assert found["jobs"] == ["job_a", "job_b"]
    main = found["scores"][found["score"]]
    assert main["difference"]["value"]
    assert main["difference"]["p_value"] is not None
    assert found["scores"].keys() <= together["scores"].keys()
    for name, row in found["scores"].items():
        assert row == together["scores"][name], name


def test_a_slice_may_have_the_name_of_what_is_kept(tmp_path: Path) -> None:
    rows = "text,label,example,said\na good one,good,x,1\na bad one,bad,y,2\n"
    spec = {"kind": "classify", "format": "csv", "slices": ["example", "said"]}
    answer, kind = CASES["classify"][2:]
    kept = evaluate(tmp_path / "a", "job_a", spec, rows, answer, kind)
    assert sorted(kept.lines) == [0, 1] or sorted(kept.lines) == [1, 2]
    assert kept.lines[min(kept.lines)]["said"] != "1"


def test_what_is_not_of_one_kind_and_data_is_not_compared(tmp_path: Path) -> None:
    fields, *given = CASES["classify"]
    spec = {"kind": "classify", **fields}
    ours = evaluate(tmp_path / "a", "job_a", spec, *given)
    other = evaluate(tmp_path / "b", "job_b", spec, REVIEWS + "fine,good,a\n", *given[1:])
    with pytest.raises(InvalidRequest, match="their data are sha256"):
        compare_kept(ours, other)
    texts, *rest = CASES["generate"]
    of_texts = evaluate(tmp_path / "c", "job_c", {"kind": "generate", **texts}, *rest)
    with pytest.raises(InvalidRequest, match="their kind are classify and generate"):
        compare_kept(ours, of_texts)
    with pytest.raises(InvalidRequest, match="no score 'acuracy'"):
        compare_kept(ours, ours, score="acuracy")
    with pytest.raises(InvalidRequest, match="job_d: no examples of an evaluation"):
        read_kept("job_d", ours.spec, ours.outputs, b'{"text": 1}\n')


def test_examples_that_one_has_alone_are_left_out_and_told(tmp_path: Path) -> None:
    fields, *given = CASES["classify"]
    spec = {"kind": "classify", **fields}
    ours = evaluate(tmp_path / "a", "job_a", spec, *given)
    few = evaluate(tmp_path / "b", "job_b", {**spec, "limit": 40, "model": "old"}, *given)
    found = compare_kept(ours, few)
    assert found["examples"] == 40
    assert found["notes"] == ["20 examples that only one of them has are left out"]
