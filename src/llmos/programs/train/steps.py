"""How many steps a run has, and at which of them something is done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmos.programs.train.recipe import Recipe

NUM_LOGS = 200


@dataclass(frozen=True, slots=True)
class Steps:
    """A step is an update of the weights."""

    total: int
    per_epoch: int
    evaluate_every: int
    log_every: int


def plan_steps(recipe: Recipe, num_examples: int) -> Steps:
    """Of a recipe, and how many examples an epoch has."""
    at_once = recipe.training.batch_size * recipe.training.processes
    num_batches = math.ceil(num_examples / at_once)
    per_epoch = max(1, math.ceil(num_batches / recipe.training.accumulate))
    total = recipe.training.steps or max(1, round(recipe.training.epochs * per_epoch))
    return Steps(
        total=total,
        per_epoch=per_epoch,
        evaluate_every=recipe.watch.evaluate_every or min(per_epoch, total),
        log_every=recipe.watch.log_every or max(1, total // NUM_LOGS),
    )
