"""What a run needs of memory at most, from sizes alone, and what would need less.

An upper bound, deliberately: whoever takes more than was reserved is killed. Weights and gradients
in float32, the optimizer's state, activations kept for the backward pass (Korthikanti et al.,
"Reducing Activation Recomputation", 2022, with the attention matrices: processors make them where
there is dropout), logits, the libraries, and the data twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from llmos.programs.train.recipe import Method, Objective, Recipe

LIBRARIES_BYTES = 900 << 20
"""An interpreter with torch, transformers, peft and what they import."""

STATE_FLOATS = {"sgd": 1, "adagrad": 1, "rmsprop": 1, "adafactor": 1}
"""Of an optimizer, for each weight that is learned; 2 for any other."""

LOGITS = frozenset(
    {
        *(Objective.MASKED, Objective.CAUSAL, Objective.DENOISE, Objective.SEQ2SEQ),
        *(Objective.SFT, Objective.DPO, Objective.KTO, Objective.GRPO),
    }
)
"""Objectives with a logit for every token and entry of the vocabulary."""

PAIRS = frozenset({Objective.EMBED, Objective.DPO, Objective.KTO, Objective.REWARD})
"""Objectives with two texts for every example."""

HEAD_SIZE = 64
"""Of attention, usually: an entry for each head and pair of tokens is made."""

SLACK = 1.25


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a model. `num_layers` counts both sides of one that has two."""

    num_parameters: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    vocab_size: int


def needed_bytes(recipe: Recipe, sizes: Sizes, data_bytes: int = 0) -> int:
    """At most, all processes together: each has a model, an optimizer and the data of its own."""
    learned = learned_parameters(recipe, sizes)
    state = STATE_FLOATS.get(recipe.training.optimizer, 2)
    weights = 4 * sizes.num_parameters * _copies(recipe)
    learning = 4 * learned * (2 + state)  # gradient, state, a copy while the best is kept
    total = weights + learning + _activations(recipe, sizes)
    one = int(LIBRARIES_BYTES + SLACK * total + 2 * data_bytes)
    return one * recipe.training.processes


def _copies(recipe: Recipe) -> float:
    """Of the base: those who learn from comparing keep what they compare with."""
    if recipe.method is Method.QLORA:
        return 0.2
    compares = recipe.objective in (Objective.DPO, Objective.KTO, Objective.GRPO)
    return 2.0 if compares and recipe.method is Method.FULL else 1.0


def learned_parameters(recipe: Recipe, sizes: Sizes) -> int:
    """About how many weights change."""
    hidden, layers, rank = sizes.hidden_size, sizes.num_layers, recipe.adapter.rank
    match recipe.method:
        case Method.FULL:
            return sizes.num_parameters
        case Method.HEAD:
            return hidden * (hidden + 1000)
        case Method.IA3:
            return layers * (2 * hidden + sizes.intermediate_size)
        case Method.PREFIX:
            return 2 * layers * recipe.adapter.tokens * hidden
        case Method.PROMPT | Method.P_TUNING:
            return recipe.adapter.tokens * hidden + 3 * hidden * hidden
        case Method.BOTTLENECK:
            return 2 * layers * 2 * rank * hidden
        case _:
            return layers * rank * (8 * hidden + 3 * (hidden + sizes.intermediate_size))


def _activations(recipe: Recipe, sizes: Sizes) -> int:
    tokens = recipe.training.batch_size * recipe.model.max_length
    if recipe.objective in PAIRS:
        tokens *= 2
    attention = 3 * recipe.model.max_length * -(-sizes.hidden_size // HEAD_SIZE)
    layer = 4 * tokens * (14 * sizes.hidden_size + 3 * sizes.intermediate_size + attention)
    if recipe.method is Method.HEAD:  # nothing below it is learned, so nothing is kept
        kept = layer
    elif recipe.training.gradient_checkpointing:
        kept = layer + 4 * tokens * sizes.hidden_size * sizes.num_layers
    else:
        kept = layer * sizes.num_layers
    logits = 4 * 3 * tokens * sizes.vocab_size if recipe.objective in LOGITS else 0
    return kept + logits


def smaller(recipe: Recipe, sizes: Sizes, budget_bytes: int, data_bytes: int = 0) -> str:
    """The least change that fits, for people; empty if none does."""
    for told, tried in _changes(recipe):
        if needed_bytes(tried, sizes, data_bytes) <= budget_bytes:
            return told
    return ""


def _changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """From those that change nothing of the result to those that change what is learned."""
    checkpointed = _with(recipe, gradient_checkpointing=True)
    if (number := recipe.training.processes) > 1:
        parts = number * recipe.training.accumulate
        recipe = _with(recipe, processes=1, accumulate=parts)
        yield f"training.processes: 1 with training.accumulate: {parts}", recipe
        yield from (
            (f"training.processes: 1 and {told}", tried) for told, tried in _changes(recipe)
        )
        return
    for size in _halves(recipe.training.batch_size):
        parts = -(-recipe.training.batch_size // size) * recipe.training.accumulate
        told = f"training.batch_size: {size} with training.accumulate: {parts}"
        yield told, _with(recipe, batch_size=size, accumulate=parts)
    yield "training.gradient_checkpointing: true", checkpointed
    for size in _halves(recipe.training.batch_size):
        parts = -(-recipe.training.batch_size // size) * recipe.training.accumulate
        told = (
            f"training.batch_size: {size} with training.accumulate: {parts} and "
            "training.gradient_checkpointing: true"
        )
        yield told, _with(checkpointed, batch_size=size, accumulate=parts)
    if recipe.base and recipe.method is Method.FULL:
        lora = msgspec.structs.replace(_with(checkpointed, batch_size=1), method=Method.LORA)
        yield (
            "method: lora with training.batch_size: 1 and training.gradient_checkpointing: true",
            lora,
        )


def _halves(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size


def _with(recipe: Recipe, **fields: object) -> Recipe:
    training = msgspec.structs.replace(recipe.training, **fields)
    return msgspec.structs.replace(recipe, training=training)
