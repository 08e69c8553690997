"""What a model made of one input: labels as bars, anything else as it is."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.errors import LLMOSError
from llmos.sdk.draw.cards import short
from llmos.sdk.draw.sheet import Markup, note, problem, said
from llmos.sdk.draw.words import escaped

MAX_LABELS = 8
MAX_TEXT_CHARS = 200


def labels_of(output: Any) -> list[tuple[str, float]]:
    """Labels with their scores, best first; empty where it is something else."""
    if isinstance(output, dict) and "label" in output:
        output = output.get("scores") or [output]
    scores = output.get("scores", output.get("labels")) if isinstance(output, dict) else output
    if isinstance(scores, dict):
        scores = [{"label": name, "score": score} for name, score in scores.items()]
    if not isinstance(scores, list):
        return []
    pairs = [
        (str(one["label"]), float(one["score"]))
        for one in scores
        if isinstance(one, dict) and "label" in one and isinstance(one.get("score"), int | float)
    ]
    if len(pairs) != len(scores):
        return []
    return sorted(pairs, key=lambda pair: -pair[1])[:MAX_LABELS]


def label_bars(pairs: list[tuple[str, float]]) -> str:
    """One bar for each label."""
    rows = "".join(
        f'<div class="label"><span>{escaped(name)}</span>'
        f'<i><b style="width:{100 * max(0.0, min(1.0, score)):.1f}%"></b></i>'
        f"<em>{score:.3f}</em></div>"
        for name, score in pairs
    )
    return f'<div class="labels">{rows}</div>'


def cell(output: Any, error: LLMOSError | None, remark: str) -> Markup:
    """One input's outcome, drawn and as text."""
    more = note(remark) if remark else ""
    if error is not None:
        text = f"{error.message} ({error.code})"
        return Markup(problem(text) + more, text)
    if pairs := labels_of(output):
        return Markup(label_bars(pairs) + more, f"{pairs[0][0]} {pairs[0][1]:.3f}")
    is_text = isinstance(output, str)
    text = output if is_text else msgspec.json.encode(output, enc_hook=str).decode()
    text = short(text, MAX_TEXT_CHARS)
    return Markup(said(text) + more, text)
