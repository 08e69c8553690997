"""Scores with their intervals, the comparison with another model, slices, the gate's verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from llmos.abi.evals import EvalSpec, Gate
from llmos.errors import InvalidRequest
from llmos.programs.evaluate.examples import Example, slices_of
from llmos.programs.evaluate.measure import MAIN, Measured
from llmos.programs.metrics.resampling import compare, interval_of
from llmos.programs.metrics.score import Score, value_of

MIN_SLICE = 2
MOST_DRAWN = 4_000_000_000
"""Examples, times classes, times replicates of a score that is no sum: above, no interval."""


def summarize(
    spec: EvalSpec, examples: Sequence[Example], measured: Sequence[Measured]
) -> dict[str, Any]:
    """`score`, `scores`, `slices`, `gate`: as they stand in a report. Raises InvalidRequest for a
    score that is none of the kind's."""
    scores = {score.name: score for score in measured[0].scores}
    main = spec.score or MAIN[spec.kind]
    _known(main, scores, "score")
    others = {score.name: score for score in measured[1].scores} if len(measured) > 1 else {}
    rows = {name: _row(spec, score, others.get(name)) for name, score in scores.items()}
    made = {"score": main, "scores": rows, "slices": _slices(spec, examples, scores[main])}
    if spec.gate is not None:
        made["gate"] = _judge(spec, spec.gate, rows, scores, others)
    return made


def _known(name: str, scores: Any, param: str) -> None:
    if name not in scores:
        near = get_close_matches(name, list(scores), n=3, cutoff=0.5) or list(scores)
        text = f"there is no score {name[:64]!r}; there is {', '.join(near)}"
        raise InvalidRequest(text, param=param)


def _row(spec: EvalSpec, score: Score, other: Score | None) -> dict[str, Any]:
    options = {"confidence": spec.confidence, "num_resamples": spec.resamples, "seed": spec.seed}
    row: dict[str, Any] = {
        "value": number(value_of(score)),
        "low": None,
        "high": None,
        "higher_is_better": score.higher_is_better,
    }
    width = getattr(score, "is_NC", np.empty((1, 1))).shape[1]
    if score.num_examples * width * spec.resamples > MOST_DRAWN:
        return row
    low, high = interval_of(score, **options)  # type: ignore[arg-type]
    row |= {"low": number(low), "high": number(high)}
    if other is not None:
        found = compare(score, other, **options)  # type: ignore[arg-type]
        row["against"] = number(value_of(other))
        row["difference"] = {
            "value": number(found.value),
            "low": number(found.interval.low),
            "high": number(found.interval.high),
            "p_value": number(found.p_value),
            "test": found.test,
        }
    return row


def number(value: float) -> float | None:
    """As JSON has it."""
    return round(value, 6) if math.isfinite(value) else None


def _slices(spec: EvalSpec, examples: Sequence[Example], score: Score) -> list[dict[str, Any]]:
    made = []
    for column, value, is_in in slices_of(examples):
        chosen = np.array(is_in)
        row: dict[str, Any] = {"column": column, "value": value, "examples": int(chosen.sum())}
        row["score"] = number(value_of(score, chosen))
        if row["examples"] >= MIN_SLICE:
            low, high = interval_of(
                score,
                chosen,
                confidence=spec.confidence,
                num_resamples=spec.resamples,
                seed=spec.seed,
            )
            row |= {"low": number(low), "high": number(high)}
        made.append(row)
    return made


# the gate


def _judge(
    spec: EvalSpec,
    gate: Gate,
    rows: dict[str, dict[str, Any]],
    scores: dict[str, Score],
    others: dict[str, Score],
) -> dict[str, Any]:
    """Passed, and for each condition whether it held, and why."""
    checks = []
    for name, bounds in gate.bounds.items():
        _known(name, rows, f"gate.bounds.{name}")
        row = rows[name]
        for limit, edge, sign in ((bounds.min, "low", 1), (bounds.max, "high", -1)):
            if limit is None:
                continue
            value = row[edge] if bounds.sure else row["value"]
            holds = value is not None and sign * value >= sign * limit
            which = f"{name} ({edge} end)" if bounds.sure else name
            words = "at least" if sign > 0 else "at most"
            checks.append(_check(holds, f"{which} is {_shown(value)}, {words} {limit:g} wanted"))
    for name, margin in gate.worse.items():
        _known(name, rows, f"gate.worse.{name}")
        if others:
            checks.append(_not_worse(spec, gate, scores[name], others[name], margin))
        else:
            missing = spec.against.removesuffix("?")
            checks.append(_check(True, f"{name}: there is no {missing} yet to be worse than"))
    passed = all(check["passed"] for check in checks)
    return {"passed": passed, "confidence": gate.confidence, "checks": checks}


def _not_worse(spec: EvalSpec, gate: Gate, new: Score, old: Score, margin: float) -> dict[str, Any]:
    found = compare(
        new,
        old,
        margin=margin,
        confidence=gate.confidence,
        num_resamples=spec.resamples,
        seed=spec.seed,
    )
    allowed = 1 - gate.confidence
    against = spec.against.removesuffix("?")
    holds = math.isfinite(found.value) and found.p_worse <= allowed
    text = (
        f"{new.name} is {_shown(value_of(new))}, that of {against} {_shown(value_of(old))}: "
        f"worse by more than {margin:g} with probability {found.p_worse:.3f}, "
        f"at most {allowed:.3g} allowed"
    )
    return _check(holds, text)


def _check(holds: bool, text: str) -> dict[str, Any]:
    return {"passed": holds, "reason": text}


def _shown(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"
