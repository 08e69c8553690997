"""What an objective makes of a recipe, and what it is given to make it of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llmos.errors import InvalidRequest
from llmos.programs.train import vocabulary
from llmos.programs.train.examples import Batch, Examples, by_length
from llmos.programs.train.recipe import Recipe, family_of
from llmos.programs.train.rows import Rows

Score = Callable[[Any, Examples], dict[str, float]]
Show = Callable[[Any, Examples, int], list[dict[str, Any]]]
"""A few outputs of the model, for people: `input`, `output`, `expected`."""


def _nothing(model: Any, examples: Examples, number: int) -> list[dict[str, Any]]:
    return []


def _nowhere(folder: Path) -> None:
    pass


@dataclass(slots=True)
class Work:
    """A model and its examples. `metric` is what the best weights are chosen by, unless the recipe
    says another; `loss`, where it is not the model's own, is a mean over the batch. `finish` adds
    to the folder what serving it needs. `facts` are for its card. `is_shared_score`: all processes
    of a run must take part in `score`."""

    model: Any
    tokenizer: Any
    examples: dict[str, Examples]
    score: Score
    metric: str = "loss"
    loss: Callable[[Any, Batch], torch.Tensor] | None = None
    show: Show = _nothing
    finish: Callable[[Path], None] = _nowhere
    facts: dict[str, Any] = field(default_factory=dict)
    is_shared_score: bool = False


@dataclass(slots=True)
class Setting:
    """`kept` is what the first attempt made and every later one goes on with: texts by name."""

    recipe: Recipe
    rows: dict[str, Rows]
    base: Path | None
    kept: dict[str, str]

    def tokenizer(self, texts: Iterable[str]) -> Any:
        """The base's, or one that is trained on the texts to learn from; kept by the name
        `tokenizer`."""
        wanted = self.recipe.model
        if self.base is not None:
            return vocabulary.load(self.base)
        from tokenizers import Tokenizer

        family = family_of(self.recipe)
        if (kept := self.kept.get("tokenizer")) is None:
            made = vocabulary.train_tokenizer(
                family, texts, wanted.vocab_size, lowercase=wanted.lowercase
            )
            kept = self.kept["tokenizer"] = made.to_str()
        return vocabulary.wrap(Tokenizer.from_str(kept), family, wanted.max_length)

    def check_vocabulary(self, model: Any, tokenizer: Any) -> None:
        """Raises InvalidRequest for a tokenizer of another model."""
        num_rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > num_rows:
            raise InvalidRequest(
                f"the tokenizer has {len(tokenizer)} entries, the model reads {num_rows}: "
                "it is another model's",
                param="recipe.base",
            )


def losses(
    model: Any, examples: Examples, batches: Iterable[list[int]], loss: Any = None
) -> Iterable[tuple[list[int], Batch, Any, float]]:
    """Each batch with its outputs and its mean loss, without gradients."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for numbers in batches:
                batch = {k: v.to(device) for k, v in examples.batch(numbers).items()}
                if loss is None:
                    outputs = model(**batch)
                    yield numbers, batch, outputs, float(outputs.loss)
                else:
                    yield numbers, batch, None, float(loss(model, batch))
    finally:
        model.train(was_training)


def mean_loss(model: Any, examples: Examples, loss: Any = None, batch_size: int = 16) -> float:
    """Over all examples."""
    total = 0.0
    for numbers, _, _, value in losses(model, examples, by_length(examples, batch_size), loss):
        total += value * len(numbers)
    return total / len(examples)


def require(rows: Mapping[str, Rows], split: str, least: int) -> None:
    """Raises InvalidRequest for a split with fewer examples."""
    if split in rows and len(rows[split]) < least:
        raise InvalidRequest(
            f"{split} has {len(rows[split])} examples, fewer than {least}", param=f"files.{split}"
        )
