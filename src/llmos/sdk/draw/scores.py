"""What an evaluation came to: figures with their intervals, and what was taken for what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmos.abi.jobs import JobRecord
from llmos.sdk.draw.words import escaped

MAX_CLASSES = 20


def main_score(job: JobRecord) -> tuple[str, dict[str, Any]]:
    """The score that decides, and its row; empty before there is one."""
    outputs = job.outputs or {}
    name = str(outputs.get("score") or "")
    row = dict_of(dict_of(outputs.get("scores")).get(name))
    return name, row


def dict_of(value: Any) -> dict[str, Any]:
    """What is no object is an empty one."""
    return value if isinstance(value, dict) else {}


def figure(value: Any) -> str:
    """A score as people read it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.4g}" if is_number and math.isfinite(value) else "–"


def interval(row: Mapping[str, Any]) -> str:
    """The score with its interval of confidence, where there is one."""
    text = figure(row.get("value"))
    if row.get("low") is None or row.get("high") is None:
        return text
    return f"{text} ({figure(row['low'])}–{figure(row['high'])})"


def worse(row: Mapping[str, Any]) -> bool:
    """Whether it got worse than the other model beyond chance: the whole interval is on the bad
    side."""
    difference = dict_of(row.get("difference"))
    low, high = difference.get("low"), difference.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return False
    return high < 0 if row.get("higher_is_better", True) else low > 0


def read_report(data: bytes) -> dict[str, Any]:
    """A report's bytes; what cannot be read is an empty one."""
    try:
        return dict_of(msgspec.json.decode(data))
    except msgspec.DecodeError:
        return {}


def matrix(report: Mapping[str, Any], title: str) -> str:
    """What was taken for what, as a table; empty where there is none, or too many classes."""
    labels, counts = report.get("labels"), report.get("confusion")
    if not isinstance(labels, list) or not isinstance(counts, list):
        return ""
    if not all(isinstance(line, list) for line in counts):  # without one the others would shift
        return ""
    if not 0 < len(labels) <= MAX_CLASSES or len(counts) < len(labels):
        return ""
    most = max((_count(n) for line in counts for n in line), default=0) or 1
    heads = "".join(f'<th scope="col">{escaped(label)}</th>' for label in labels)
    lines = "".join(
        f'<tr><th scope="row">{escaped(label)}</th>{_line(line, number, most)}</tr>'
        for number, (label, line) in enumerate(zip(labels, counts, strict=False))
    )
    return (
        f'<h3>{escaped(title)}</h3><table class="matrix"><thead><tr><td></td>{heads}</tr>'
        f"</thead><tbody>{lines}</tbody></table>"
    )


def _count(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _line(line: Sequence[Any], number: int, most: float) -> str:
    return "".join(
        f'<td class="{"right" if place == number else "wrong"}"'
        f' style="--part:{60 * _count(value) / most:.0f}%">{_count(value):g}</td>'
        for place, value in enumerate(line)
    )
