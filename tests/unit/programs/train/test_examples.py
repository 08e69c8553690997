"""The recipes of `examples/`: each is one, and says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llmos.programs.train.memory import needed_bytes
from llmos.programs.train.plan import scratch_sizes
from llmos.programs.train.recipe import parse

RECIPES = sorted((Path(__file__).parents[4] / "examples" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_a_recipe_that_fits_a_small_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# ")
    recipe = parse(yaml.safe_load(text))
    if not recipe.base:
        assert needed_bytes(recipe, scratch_sizes(recipe)) < 8 << 30


def test_there_are_some() -> None:
    assert len(RECIPES) >= 10
