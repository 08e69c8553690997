"""Random plans that make room, each checked against a model of the ledger.

A machine of one or two devices is filled and emptied at random: replicas come when there is room
or a plan makes it, are leased, pinned, parked and unparked. Every plan must cover what is missing
with nothing to spare, touch nobody leased or pinned, and leave a ledger that is never
over-committed; where few could go, no other set of acts may cost less. A need that is given up must
be one that all together cannot meet.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import harness
from llmos.kernel.core.eviction import Eviction, Idle, cost_of, rank_of
from llmos.kernel.core.ledger import Ledger
from llmos.kernel.core.room import Act, Choice, plan_in_order, plan_room

GIB = 1 << 30
NUM_OWNERS = (2, 4, 8, 16, 24)
SHARES = (0.30, 0.40, 0.20, 0.06, 0.04)
"""Of the plans, by the owners a machine holds about."""

MOST_TRIED = 5
"""Candidates of a plan that is compared with every subset."""

NUM_PARTS = 10
FAULTS = ("over-commit", "act on a leased or pinned one", "not covered", "superfluous act",
          "given up without need", "dearer than the best subset")  # fmt: skip

Candidates = list[list[Choice]]


@dataclass
class Owner:
    """What the model knows of one; `parked_bytes` is what parking leaves of it, by device."""

    name: str
    size_bytes: dict[str, int]
    parked_bytes: dict[str, int]
    reload_ns: float
    probability: float
    since_ns: int
    is_parked: bool = False
    is_kept: bool = False  # leased or pinned

    def choices(self) -> list[Choice]:
        """Stop it; park it, if it is not."""
        cost = cost_of(self.idle())
        if self.is_parked:
            return [Choice(self.name, Act.STOP, self.parked_bytes, cost * 0.7)]
        parked = {d: size - self.parked_bytes[d] for d, size in self.size_bytes.items()}
        return [
            Choice(self.name, Act.PARK, parked, cost * 0.3),
            Choice(self.name, Act.STOP, self.size_bytes, cost),
        ]

    def idle(self) -> Idle:
        size_bytes = sum(self.size_bytes.values())
        return Idle(self.name, size_bytes, self.reload_ns, self.probability, self.since_ns, 0)


class Machine:
    """Ledgers, what they should say (`model`), and what went wrong (`faults`)."""

    def __init__(self, num_owners: int, rng: random.Random) -> None:
        devices = ["host", "cuda:0"] if rng.random() < 0.3 else ["host"]
        self.rng, self.num = rng, 0
        self.ledgers = {device: Ledger(num_owners * 3 * GIB) for device in devices}
        self.owners: dict[str, Owner] = {}
        self.faults: Counter[str] = Counter()
        self.us: dict[int, list[float]] = {}
        self.num_met = self.num_tried = self.num_in_order = 0

    def draw(self) -> Owner:
        """A replica of 0.25 to 8 GiB, on the host alone or with most of it on the device."""
        rng, self.num = self.rng, self.num + 1
        size = rng.randrange(GIB // 4, 8 * GIB)
        sizes = dict.fromkeys(self.ledgers, 0) | {"host": size}
        if "cuda:0" in sizes and rng.random() < 0.5:
            sizes |= {"host": size // 8, "cuda:0": size}
        parked = {d: size if d == "host" and size < GIB else size // 4 for d, size in sizes.items()}
        wanted = rng.choice((0.0, rng.random()))
        return Owner(f"rep_{self.num}", sizes, parked, size * rng.uniform(0.5, 4), wanted, self.num)

    def turn(self) -> int:
        """One need: met by a plan, or given up. How many plans it took, 0 or 1."""
        new = self.draw()
        missing = {d: n - self.ledgers[d].free_bytes for d, n in new.size_bytes.items()}
        num_plans = 0
        if any(size_bytes > 0 for size_bytes in missing.values()):
            num_plans = 1
            candidates = [o.choices() for o in self.owners.values() if not o.is_kept]
            plan = self.plan(missing, candidates)
            self.check(missing, candidates, plan)
            if plan is None:
                self.stir()
                return 1
            for choice in plan:
                self.act(choice)
        self.admit(new)
        self.stir()
        return num_plans

    def plan(self, missing: Mapping[str, int], candidates: Candidates) -> list[Choice] | None:
        began = time.perf_counter()
        plan = plan_room(missing, candidates)
        spent_us = (time.perf_counter() - began) * 1e6
        self.us.setdefault(len(candidates), []).append(spent_us)
        return plan

    def check(
        self, missing: Mapping[str, int], candidates: Candidates, plan: list[Choice] | None
    ) -> None:
        if plan is None:
            everything = [choices[-1] for choices in candidates]
            self.faults["given up without need"] += covers(everything, missing)
            return
        self.num_met += 1
        self.faults["not covered"] += not covers(plan, missing)
        kept = [choice for choice in plan if self.owners[choice.owner].is_kept]
        self.faults["act on a leased or pinned one"] += len(kept)
        for out in plan:
            self.faults["superfluous act"] += covers([c for c in plan if c is not out], missing)
        if len(candidates) <= MOST_TRIED:
            self.num_tried += 1
            best = least_cost(missing, candidates)
            is_dearer = sum(c.cost for c in plan) > best * (1 + 1e-12)
            self.faults["dearer than the best subset"] += is_dearer
        self.check_in_order(missing, plan)

    def check_in_order(self, missing: Mapping[str, int], plan: list[Choice]) -> None:
        """By LRU whoever can go does, and it costs no less."""
        idle = sorted(
            (o for o in self.owners.values() if not o.is_kept),
            key=lambda owner: rank_of(owner.idle(), Eviction.LRU),
        )
        lru = plan_in_order(missing, [owner.choices()[-1] for owner in idle])
        self.num_in_order += 1
        if lru is None or not covers(lru, missing):
            self.faults["not covered"] += 1
        elif sum(c.cost for c in lru) * (1 + 1e-12) < sum(c.cost for c in plan):
            self.faults["dearer than the best subset"] += 1

    def act(self, choice: Choice) -> None:
        owner = self.owners[choice.owner]
        for device, ledger in self.ledgers.items():
            if choice.act is Act.PARK:
                ledger.shrink(owner.name, owner.parked_bytes[device])
            else:
                ledger.release(owner.name)
        owner.is_parked = True
        if choice.act is Act.STOP:
            del self.owners[owner.name]
        self.add_up()

    def admit(self, owner: Owner) -> None:
        if any(n > self.ledgers[d].free_bytes for d, n in owner.size_bytes.items()):
            self.faults["over-commit"] += 1
            return
        for device, size_bytes in owner.size_bytes.items():
            self.ledgers[device].reserve(owner.name, size_bytes)
        self.owners[owner.name] = owner
        self.add_up()

    def stir(self) -> None:
        """Leases begin and end, and someone parked is wanted again if there is room for it."""
        for owner in self.rng.sample(list(self.owners.values()), min(3, len(self.owners))):
            owner.is_kept = self.rng.random() < 0.3
            owner.since_ns = self.num
            more = {d: n - owner.parked_bytes[d] for d, n in owner.size_bytes.items()}
            fits = all(n <= self.ledgers[d].free_bytes for d, n in more.items())
            if owner.is_parked and fits:
                owner.is_parked = False
                for device, size_bytes in owner.size_bytes.items():
                    self.ledgers[device].grow(owner.name, size_bytes)
        self.add_up()

    def add_up(self) -> None:
        """The ledgers say what the owners hold, and that it fits."""
        for device, ledger in self.ledgers.items():
            held = sum(
                (owner.parked_bytes if owner.is_parked else owner.size_bytes)[device]
                for owner in self.owners.values()
            )
            self.faults["over-commit"] += held != ledger.reserved_bytes or ledger.free_bytes < 0


def covers(chosen: Iterable[Choice], missing: Mapping[str, int]) -> bool:
    chosen = list(chosen)
    return all(sum(c.frees.get(d, 0) for c in chosen) >= size for d, size in missing.items())


def least_cost(missing: Mapping[str, int], candidates: Sequence[Sequence[Choice]]) -> float:
    """Of every subset that covers; infinite if none does."""
    least = math.inf
    for picked in itertools.product(*[[None, *choices] for choices in candidates]):
        chosen = [choice for choice in picked if choice is not None]
        cost = sum(choice.cost for choice in chosen)
        if cost < least and covers(chosen, missing):
            least = cost
    return least


def run(num_plans: int, seed: int) -> list[Machine]:
    """Machines of every size, renewed from time to time, until so many plans are made."""
    rng, machines = random.Random(seed), []
    for num_owners, share in zip(NUM_OWNERS, SHARES, strict=True):
        num_left = round(num_plans * share)
        while num_left > 0:
            machine = Machine(num_owners, rng)
            machines.append(machine)
            for _ in range(400):
                num_left -= machine.turn()
                if num_left <= 0:
                    break
    return machines


def rows(result: harness.Result, num_plans: int = 100_000) -> bool:
    """Faults and time per plan. True if there were no faults."""
    machines = run(num_plans, seed=4)
    faults: Counter[str] = sum((m.faults for m in machines), Counter())
    made = sum(len(us) for m in machines for us in m.us.values())
    met, tried = (sum(getattr(m, name) for m in machines) for name in ("num_met", "num_tried"))
    for figure, value in (
        ("plans asked for", made),
        ("plans that made room", met),
        ("plans compared with every subset", tried),
        *((f"faults: {fault}", faults[fault]) for fault in FAULTS),
    ):
        result.add(harness.Row(figure, value, "plans" if "plans" in figure else "times"))
    _times(result, machines)
    return not any(faults.values())


def _times(result: harness.Result, machines: Sequence[Machine]) -> None:
    """Medians of parts of the plans, so that the interval says how steady they are."""
    for low, high in itertools.pairwise((1, 2, 3, 5, 9, 17, 33)):
        us = [t for m in machines for n, times in m.us.items() if low <= n < high for t in times]
        if len(us) < NUM_PARTS:
            continue
        parts = [statistics.median(us[part::NUM_PARTS]) for part in range(NUM_PARTS)]
        name = f"{low} candidates" if high == low + 1 else f"{low} to {high - 1} candidates"
        result.add(harness.single(f"a plan, {name}", "µs", parts))
        late = harness.round4(harness.percentile(us, 0.99))
        result.add(harness.Row(f"a plan, {name}: 99 % within", late, "µs"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=100_000)
    arguments = parser.parse_args()
    result = harness.Result("memory-plans", "python -m benchmarks.memory.plans")
    holds = rows(result, arguments.plans)
    print("no faults" if holds else "FAULTS")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
