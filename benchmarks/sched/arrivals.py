"""When requests fall due: Poisson processes, pieces of a recorded trace. Seconds from a start."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec


class TraceEntry(msgspec.Struct, frozen=True):
    """One recorded request: when it came, tokens of its prompt and of its answer."""

    due_s: float
    prompt_tokens: int
    output_tokens: int


def poisson(rate: float, duration_s: float, seed: int) -> list[float]:
    """`rate` per second, drawn from `seed`."""
    return list(_poisson(rate, duration_s, random.Random(seed)))


def _poisson(rate: float, duration_s: float, draw: random.Random) -> Iterator[float]:
    at = draw.expovariate(rate)
    while at < duration_s:
        yield at
        at += draw.expovariate(rate)


def read_trace(path: Path) -> list[TraceEntry]:
    """The Azure LLM inference trace: TIMESTAMP, ContextTokens, GeneratedTokens."""
    with path.open(newline="") as file:
        rows = [
            (
                datetime.fromisoformat(row["TIMESTAMP"][:26]),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(file)
        ]
    began = rows[0][0]
    return [TraceEntry((at - began).total_seconds(), prompt, out) for at, prompt, out in rows]


def window(
    trace: list[TraceEntry], start_s: float, length_s: float, duration_s: float
) -> list[TraceEntry]:
    """A piece of a trace, played in `duration_s` instead of `length_s`."""
    scale = duration_s / length_s
    return [
        msgspec.structs.replace(entry, due_s=(entry.due_s - start_s) * scale)
        for entry in trace
        if start_s <= entry.due_s < start_s + length_s
    ]
