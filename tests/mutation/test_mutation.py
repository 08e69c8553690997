"""The tester is tested: a quick part of `make mutants`, and the machinery of it."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.__main__ import judge
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.operators import Mutant, draw, every, modules, read
from tests.mutation.planted import PLANTS
from tests.syntax import parse

QUICK = ("one row too many", "memory is not released", "last come, first served")


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: p.name)
def test_every_plant_fits_the_core_as_it_is(plant: object) -> None:
    mutant = plant.mutant()  # type: ignore[attr-defined]
    parse(mutant.source)
    assert mutant.source != read(mutant.module)


@pytest.mark.parametrize("plant", [p for p in PLANTS if p.name in QUICK], ids=lambda p: p.name)
def test_planted_mutants_are_caught(plant: object) -> None:
    assert judge(plant.mutant()).caught  # type: ignore[attr-defined]


@pytest.mark.deep
def test_a_mutant_that_changes_nothing_would_survive() -> None:
    """Else everything would be caught, by something else."""
    source = read("policies.fifo") + "\nunused = 1\n"
    assert judge(Mutant("none", "policies.fifo", source, "")).caught is None


def test_drawing_is_repeatable_and_every_drawn_mutant_differs() -> None:
    first, second = draw(7, 12), draw(7, 12)
    assert first == second
    for mutant in first:
        assert ast.dump(parse(mutant.source)) != ast.dump(parse(read(mutant.module)))


def test_every_module_that_decides_is_mutated() -> None:
    assert {site.module for site in every()} >= set(modules()) - {"policies.priority"}


def test_excuses_are_for_lines_that_exist() -> None:
    for module, what in EQUIVALENT:
        line = what.split("`")[1]
        assert line in read(module), (module, what)
