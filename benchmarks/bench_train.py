"""Models made here: how good, how fast, how exactly resumed, and what they cost others.

Every part is a run of the real server beside its peers: `texts` (accuracy of classifiers from
scratch), `causal` (tokens per second and loss of pre-training), `exact` (a run put off and killed),
`traffic` (what interactive requests wait beside a run) and `memory` (LoRA beside all weights).
Rows of parts that are not run anew stay as they were; a note tells when they were made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import harness
from benchmarks.train import causal, exact, memory, texts, traffic

PARTS = ("texts", "causal", "exact", "traffic", "memory")
ROWS: dict[str, tuple[str, ...]] = {
    "causal": ("causal",),
    "exact": ("suspended", "the same"),
    "traffic": ("p95",),
    "memory": ("LoRA",),
}
"""How the rows of a part begin; those of `texts` as no other's."""


def part_of(figure: str) -> str:
    """Whose row it is."""
    return next((name for name, start in ROWS.items() if figure.startswith(start)), "texts")


def keep_others(result: harness.Result, measured: list[str], folder: Path) -> None:
    """Take the rows of other parts, and their notes, from the result there is."""
    path = folder / f"{result.name}.json"
    if not path.exists():
        return
    before = msgspec.json.decode(path.read_bytes())
    rows = [msgspec.convert(row, harness.Row) for row in before["rows"]]
    notes = {note.partition(":")[0]: note for note in before.get("notes", [])}
    result.rows += [row for row in rows if part_of(row.figure) not in measured]
    result.notes += [note for part, note in notes.items() if part not in measured]
    result.rows.sort(key=lambda row: PARTS.index(part_of(row.figure)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--sets", default="rt-polarity,ChnSentiCorp,banking77", help="of texts")
    parser.add_argument("--steps", type=int, default=200, help="of causal")
    parser.add_argument("--repetitions", type=int, default=3, help="of causal")
    parser.add_argument("--exact-steps", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5, help="of two suspensions and a kill")
    parser.add_argument("--requests", type=int, default=100, help="of traffic, in each arm")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := sorted(set(wanted) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    result = harness.Result("train", harness.command("train"))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        measures: dict[str, Callable[[], None]] = {
            "texts": lambda: texts.measure(result, folder, arguments.sets.split(",")),
            "causal": lambda: causal.measure(
                result, folder, arguments.steps, arguments.repetitions
            ),
            "exact": lambda: exact.measure(result, folder, arguments.exact_steps, arguments.rounds),
            "traffic": lambda: traffic.measure(result, folder, arguments.requests),
            "memory": lambda: memory.measure(result),
        }
        for part in PARTS:
            if part in wanted:
                measures[part]()
                said = f"`{result.command}`, {result.date}, {result.commit}"
                result.notes.append(f"{part}: {said}; {result.machine}")
    keep_others(result, wanted, harness.RESULTS)
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
