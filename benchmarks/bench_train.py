"""Models made here: how good, how fast, how exactly resumed, and what they cost others.

Every part is a run of the real server beside its peers: `texts` (accuracy of classifiers and of a
tagger from scratch), `pretrained` (an encoder, and what a probe and a LoRA make of it), `causal`
(tokens per second and loss of pre-training), `exact` (a run put off and killed), `traffic` (what
interactive requests wait beside a run, and what it loses) and `memory` (LoRA beside all weights,
estimates beside peaks). Rows of parts that are not run anew stay as they were; a note tells when
they were made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import harness
from benchmarks.train import causal, exact, memory, pretrained, texts, traffic

PARTS = ("texts", "pretrained", "causal", "exact", "traffic", "memory")
ROWS: dict[str, tuple[str, ...]] = {
    "pretrained": ("pretrained",),
    "causal": ("causal",),
    "exact": ("suspended", "the same"),
    "traffic": ("p95", "traffic"),
    "memory": ("LoRA", "memory"),
}
"""How the rows of a part begin; those of `texts` as no other's."""

QUICK = {
    "rows": 400,
    "pretraining_steps": 20,
    "steps": 40,
    "repetitions": 1,
    "exact_steps": 600,
    "rounds": 1,
    "requests": 10,
}
"""Whether all of it runs: no figure of it is kept."""


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
    parser.add_argument("--quick", action="store_true", help="small, and nothing is written")
    parser.add_argument("--sets", default=",".join(texts.SETS), help="of texts")
    parser.add_argument("--rows", type=int, help="of each set of texts, all where unsaid")
    parser.add_argument("--pretraining-steps", type=int, help="as its recipe says where unsaid")
    parser.add_argument("--steps", type=int, default=200, help="of causal")
    parser.add_argument("--repetitions", type=int, default=3, help="of causal, and of traffic")
    parser.add_argument("--exact-steps", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5, help="of two suspensions and a kill")
    parser.add_argument("--requests", type=int, default=100, help="of traffic, in each arm")
    given = parser.parse_args()
    wanted = given.only.split(",")
    for said, known in ((wanted, PARTS), (given.sets.split(","), texts.SETS)):
        if unknown := sorted(set(said) - set(known)):
            parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    if given.quick:
        vars(given).update(QUICK)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        kept = folder / "results" if given.quick else harness.RESULTS
        result = measure(wanted, given, folder, kept)
        print(result.write(kept))
    return 0


def measure(
    wanted: list[str], given: argparse.Namespace, folder: Path, kept: Path
) -> harness.Result:
    """The parts that are wanted, and the rows of the others as they were."""
    kept.mkdir(parents=True, exist_ok=True)
    result = harness.Result("train", harness.command("train"))
    measures: dict[str, Callable[[], None]] = {
        "texts": lambda: texts.measure(result, folder, given.sets.split(","), given.rows),
        "pretrained": lambda: pretrained.measure(
            result, folder, given.pretraining_steps, given.rows
        ),
        "causal": lambda: causal.measure(result, folder, given.steps, given.repetitions, kept),
        "exact": lambda: exact.measure(result, folder, given.exact_steps, given.rounds),
        "traffic": lambda: traffic.measure(result, folder, given.requests, given.repetitions),
        "memory": lambda: memory.measure(result, folder),
    }
    for part in PARTS:
        if part in wanted:
            measures[part]()
            said = f"`{result.command}`, {result.date}, {result.commit}"
            result.notes.append(f"{part}: {said}; {result.machine}")
    keep_others(result, wanted, kept)
    return result


if __name__ == "__main__":
    sys.exit(main())
