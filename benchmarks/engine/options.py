"""What every part is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engine.environments import Peer
from benchmarks.engine.ours import Load
from benchmarks.harness import Result

PROMPT_TOKENS = 128
WARM_UP_TOKENS = 32
"""Of a prompt that only wakes an engine at a width; its first width has the whole length."""
NUM_NEW = {1: 64}
NUM_NEW_WIDE = 32


@dataclass
class Context:
    """The options, the result, and the lines of its plots."""

    result: Result
    models: Sequence[str]
    precisions: Sequence[str]
    widths: Sequence[int]
    peers: Sequence[Peer]
    repetitions: int
    num_threads: int
    full: bool
    our_threads: int = 0
    trace: Path | None = None
    trace_rate: float = 0.5
    trace_requests: int = 40
    series: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)

    def load(self, model: str, precision: str, context_tokens: int) -> Load:
        """Of `-long` models: their context is not the limit."""
        name, width = f"{model}-long", max(self.widths)
        return Load(name, precision, self.num_threads, width, context_tokens, self.our_threads)

    def report(self, text: str) -> None:
        """Said at once and kept with the result."""
        print(text, flush=True)
        self.result.notes.append(text)

    def keep(self, figure: str, title: str, at: float, value: float) -> None:
        """A point of a plot's line."""
        self.series.setdefault(figure, {}).setdefault(title, []).append((at, value))

    def widths_of(self, model: str) -> Sequence[int]:
        """All of the first model; of the others the narrowest and the widest, unless in full."""
        if self.full or model == self.models[0]:
            return self.widths
        return sorted({self.widths[0], self.widths[-1]})

    def num_new(self, width: int) -> int:
        """Tokens per stream: enough for streams that begin one after another to meet."""
        return (4 if self.full else 1) * NUM_NEW.get(width, NUM_NEW_WIDE)
