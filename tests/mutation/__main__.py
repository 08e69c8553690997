"""Every mutant must be caught: `python -m tests.mutation [--drawn N | --every] [--seed S]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.operators import Mutant, draw, every
from tests.mutation.planted import PLANTS

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 900
"""Of the clock: a hunt ends itself long before, by its processor time."""


@dataclass(frozen=True)
class Verdict:
    """`caught`: by what; None: it survived. `excuse`: why nobody could catch it."""

    mutant: Mutant
    caught: str | None
    spent_s: float

    @property
    def excuse(self) -> str | None:
        return EQUIVALENT.get(key(self.mutant)) if self.caught is None else None


def key(mutant: Mutant) -> tuple[str, str]:
    return mutant.module, mutant.what


def judge(mutant: Mutant) -> Verdict:
    """In a process of its own: the mutant replaces its module before anything imports it."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation.hunt"],
        input=json.dumps({"module": mutant.module, "source": mutant.source}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"{mutant.name}: the hunt itself failed: {done.stderr[-2000:]}")
    caught = done.stdout if done.returncode else None
    return Verdict(mutant, caught, time.monotonic() - began)


def judge_all(mutants: Iterable[Mutant], jobs: int) -> list[Verdict]:
    """Prints each as it is known."""
    verdicts = []
    with ThreadPoolExecutor(jobs) as pool:
        for verdict in pool.map(judge, mutants):
            if verdict.caught:
                said = f"caught by {verdict.caught}"
            else:
                said = f"EQUIVALENT: {verdict.excuse}" if verdict.excuse else "SURVIVED"
            print(f"{verdict.spent_s:5.1f} s  {verdict.mutant.name}: {verdict.mutant.what}")
            print(f"         {said}", flush=True)
            verdicts.append(verdict)
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawn", type=int, default=40, help="mechanical mutants")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--every", action="store_true", help="one at every place, drawn or not")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    sound = judge(Mutant("the core itself", "", "", "nothing changed"))
    if sound.caught:
        print(f"the core itself is caught: {sound.caught}")
        return 2
    number = len(every()) if arguments.every else arguments.drawn
    mutants = [plant.mutant() for plant in PLANTS]
    verdicts = judge_all([*mutants, *draw(arguments.seed, number)], arguments.jobs)
    lost = [v for v in verdicts if v.caught is None and v.excuse is None]
    num_excused = sum(v.excuse is not None for v in verdicts)
    num_caught = sum(v.caught is not None for v in verdicts)
    print(
        f"{len(verdicts)} mutants ({len(PLANTS)} planted): {num_caught} caught, "
        f"{num_excused} equivalent, {len(lost)} survived"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
