"""Two evaluations that were made apart, compared example by example: from what each kept.

The file `examples.jsonl` holds what was right and what was said, so both are scored again, over the
same classes and on the examples that both have. What it does not hold (probabilities, places after
the tenth) is not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmos.abi.evals import EvalKind, EvalSpec
from llmos.errors import InvalidRequest
from llmos.programs.evaluate.examples import Example
from llmos.programs.evaluate.measure import NONE, Measured, measure
from llmos.programs.evaluate.verdict import summarize
from llmos.programs.metrics.entities import Entity
from llmos.programs.metrics.likelihood import Likelihood
from llmos.programs.metrics.ranking import LEADING

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """An evaluation's outputs and its lines, by the number of the example."""

    name: str
    spec: EvalSpec
    outputs: Mapping[str, Any]
    lines: Mapping[int, Line]


def read_kept(name: str, spec: EvalSpec, outputs: Mapping[str, Any], data: bytes) -> Kept:
    """Raises InvalidRequest for lines that are none."""
    try:
        lines = msgspec.json.Decoder(dict[str, Any]).decode_lines(data)
        return Kept(name, spec, outputs, {int(line["example"]): line for line in lines})
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{name}: no examples of an evaluation: {error}") from None


def compare_kept(
    ours: Kept, theirs: Kept, *, score: str = "", resamples: int = 0
) -> dict[str, Any]:
    """A report of the first, against the second. Raises InvalidRequest for two that are not of the
    same kind and data, or have no example in common."""
    _check_alike(ours, theirs)
    common = sorted(ours.lines.keys() & theirs.lines.keys())
    if not common:
        raise InvalidRequest(f"{ours.name} and {theirs.name} have no example in common")
    spec = EvalSpec(
        kind=ours.spec.kind,
        model=str(ours.outputs["model"]),
        against=str(theirs.outputs["model"]),
        labels=ours.spec.labels,
        language=ours.spec.language,
        score=score or ours.spec.score,
        confidence=ours.spec.confidence,
        resamples=resamples or ours.spec.resamples,
        seed=ours.spec.seed,
    )
    examples = [_example(spec.kind, number, ours.lines[number]) for number in common]
    each = [[_ANSWER[spec.kind](kept.lines[n]) for n in common] for kept in (ours, theirs)]
    if spec.kind is EvalKind.JUDGE:
        measured = [measure(spec, examples, [answers])[0] for answers in each]
    else:
        measured = measure(spec, examples, each)
    if spec.kind is EvalKind.RETRIEVE:
        _drop_deep(measured)
    num_apart = len(ours.lines.keys() ^ theirs.lines.keys())
    notes = [f"{num_apart} examples that only one of them has are left out"] if num_apart else []
    return {
        "kind": spec.kind.value,
        "model": spec.model,
        "against": spec.against,
        "jobs": [ours.name, theirs.name],
        "data": ours.outputs["data"],
        "examples": len(common),
        "rejected": sum(ours.lines[n].get("said") in (None, NONE) for n in common)
        if spec.kind is EvalKind.CLASSIFY
        else 0,
        "failed": 0,
        "confidence": spec.confidence,
        "resamples": spec.resamples,
        "notes": notes,
        **summarize(spec, examples, measured),
    }


def _check_alike(ours: Kept, theirs: Kept) -> None:
    for what in ("kind", "data", "corpus"):
        mine, other = (str(kept.outputs.get(what, "")) for kept in (ours, theirs))
        if mine != other:
            raise InvalidRequest(
                f"{ours.name} and {theirs.name} cannot be compared: their {what} are {mine} and "
                f"{other}",
                param=what,
            )


def _drop_deep(measured: Sequence[Measured]) -> None:
    for of in measured:
        of.scores = [
            score
            for score in of.scores
            if (place := score.name.partition("@")[2]).isdigit() and int(place) <= LEADING
        ]


def _example(kind: EvalKind, number: int, line: Line) -> Example:
    right = line["expected"]
    if kind is EvalKind.NER:
        right = {Entity(*one) for one in right}
    return Example(number, {"text": ""}, right, {})


def _label(line: Line) -> Any:
    return None if line["said"] == NONE else {"label": line["said"]}


def _entities(line: Line) -> Any:
    return [{"label": label, "start": start, "end": end} for label, start, end in line["said"]]


def _said(line: Line) -> Any:
    return line["said"]


def _likelihood(line: Line) -> Any:
    return {name: line[name] for name in Likelihood._fields}


def _ranking(line: Line) -> Any:
    return [{"index": place} for place in line["said"]]


def _verdicts(line: Line) -> Any:
    return line["said"], line["verdicts"]


_ANSWER: Mapping[EvalKind, Callable[[Line], Any]] = {
    EvalKind.CLASSIFY: _label,
    EvalKind.NER: _entities,
    EvalKind.QA: _said,
    EvalKind.GENERATE: _said,
    EvalKind.SUMMARIZE: _said,
    EvalKind.TRANSLATE: _said,
    EvalKind.PERPLEXITY: _likelihood,
    EvalKind.CHOICE: _said,
    EvalKind.RETRIEVE: _ranking,
    EvalKind.JUDGE: _verdicts,
}
