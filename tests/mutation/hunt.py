"""Hunts one mutant in this process: `python -m tests.mutation.hunt < mutant.json`.

Before anything of the core is imported, its module is replaced by the mutated source. Then the
simulator's small worlds, the policies' scenarios and the state machine look at it. Exit status 1:
caught, with how on stdout; 0: it survived.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import signal
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

NUM_WORLDS = 250
WATCHDOG_S = 60
"""Of processor time, so that a busy machine catches nothing; the whole hunt takes about 8."""
CORE = "llmos.kernel.core."


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, whose source is given."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source

    def find_spec(
        self, fullname: str, path: Any, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, f"<mutant of {fullname}>", "exec")


def hunters() -> Iterator[tuple[str, Callable[[], None]]]:
    """The cheapest first."""
    yield "worlds", lambda: worlds(0, 40)
    yield from scenarios()
    yield "worlds", lambda: worlds(40, NUM_WORLDS)
    yield "machine", machine


def worlds(first: int, last: int) -> None:
    from llmos.kernel.sim.small import world

    for seed in range(first, last):
        try:
            world(seed).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


def scenarios() -> Iterator[tuple[str, Callable[[], None]]]:
    """Tests of the core, of policies on simulated workers, and of what was found before."""
    from tests.contract.policies import test_policies
    from tests.unit.kernel import (
        test_core,
        test_eviction,
        test_jobs_core,
        test_memory,
        test_reuse,
        test_room,
        test_sched,
        test_shares,
        test_suspend,
    )
    from tests.unit.kernel.sim import (
        test_exact,
        test_found,
        test_found_memory,
        test_outlook,
        test_shed,
    )

    own = (test_exact, test_found, test_found_memory, test_outlook, test_shed)
    plain = (test_core, test_sched, test_memory, test_suspend, test_eviction, test_reuse)
    others = (test_jobs_core, test_room, test_shares)
    for module in (*own, *plain, *others, test_policies):
        for name, test in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(test):
                for mark in getattr(test, "pytestmark", []):
                    is_one = isinstance(mark.args[0], str)
                    for value in mark.args[1]:
                        values = (value,) if is_one else value
                        yield name, lambda t=test, v=values: t(*v)  # type: ignore[misc]
                if not getattr(test, "pytestmark", []):
                    yield name, test


def machine() -> None:
    from hypothesis import Phase, settings
    from hypothesis.stateful import run_state_machine_as_test

    from tests.unit.kernel.test_core_machine import MACHINES, profile

    quiet = settings(
        profile(20, 80), phases=[Phase.generate], derandomize=True, database=None, print_blob=False
    )
    for each in MACHINES:
        run_state_machine_as_test(each, settings=quiet)  # type: ignore[no-untyped-call]


def hunt() -> str | None:
    """How it was caught, if it was. A mutant that loops is caught by the watchdog."""

    def too_long(*_: object) -> None:
        raise TimeoutError("it does not come to an end")

    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, WATCHDOG_S)
    who = "import"
    try:
        for name, look in hunters():
            who = name
            look()
    except Exception as error:
        return f"{who}: {type(error).__name__}: {error}".splitlines()[0][:160]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def main() -> int:
    given = json.load(sys.stdin)
    if given["module"]:
        sys.meta_path.insert(0, Replaced(CORE + given["module"], given["source"]))
    caught = hunt()
    sys.stdout.write(caught or "survived")
    return 1 if caught else 0


if __name__ == "__main__":
    sys.exit(main())
