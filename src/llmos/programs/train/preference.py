"""TRL's trainers, with our checkpoints and what looks after a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos.errors import InvalidRequest
from llmos.programs.train.recipe import TRAIN, Objective, Recipe
from llmos.programs.train.steps import Steps
from llmos.programs.train.trainer import Resumable, argument_fields
from llmos.programs.train.work import Work

OBJECTIVES = frozenset(
    {Objective.SFT, Objective.DPO, Objective.KTO, Objective.REWARD, Objective.GRPO}
)
CLASSES = {
    Objective.SFT: ("SFTTrainer", "SFTConfig"),
    Objective.DPO: ("DPOTrainer", "DPOConfig"),
    Objective.KTO: ("KTOTrainer", "KTOConfig"),
    Objective.REWARD: ("RewardTrainer", "RewardConfig"),
    Objective.GRPO: ("GRPOTrainer", "GRPOConfig"),
}
NUM_GENERATIONS = 4
"""Answers to a prompt that GRPO compares."""


def make_trainer(recipe: Recipe, work: Work, steps: Steps, watch: Any, scratch: Path) -> Any:
    """Raises InvalidRequest for settings that TRL refuses."""
    import trl
    from transformers import PrinterCallback

    trainer_name, config_name = CLASSES[recipe.objective]
    trainer_class: Any = _counting(getattr(trl, trainer_name))
    fields = {**argument_fields(recipe, steps, scratch), **_own_fields(recipe)}
    given: dict[str, Any] = {
        "model": work.model,
        "processing_class": work.tokenizer,
        "callbacks": [watch],
        "train_dataset": _data(work, TRAIN),
        "eval_dataset": {s: _data(work, s) for s in work.examples if s != TRAIN} or None,
    }
    if recipe.objective is Objective.GRPO:
        given["reward_funcs"] = near_target
        del given["eval_dataset"]
    try:
        trainer = trainer_class(args=getattr(trl, config_name)(**fields), **given)
    except ValueError as error:
        raise InvalidRequest(f"{recipe.objective}: {error}", param="recipe.training") from None
    trainer.remove_callback(PrinterCallback)
    for texts in work.examples.values():
        held: Any = texts
        held.trainer = trainer
    trainer.counted = work.examples[TRAIN]
    work.model = trainer.model
    return trainer


def _data(work: Work, split: str) -> Any:
    texts: Any = work.examples[split]
    return texts.dataset


def _own_fields(recipe: Recipe) -> Mapping[str, Any]:
    longest, training = recipe.model.max_length, recipe.training
    if recipe.objective is Objective.GRPO:
        half = max(1, longest // 2)
        return {
            "beta": training.beta,
            "num_generations": NUM_GENERATIONS,
            "max_completion_length": half,
        }
    fields: dict[str, Any] = {"max_length": longest, "remove_unused_columns": True}
    if recipe.objective in (Objective.DPO, Objective.KTO):
        fields["beta"] = training.beta
    return fields | {"per_device_eval_batch_size": training.batch_size}


def _counting(trainer: Any) -> Any:
    """One that goes on exactly, and counts the tokens that all have seen: as many each as this."""

    class Counting(Resumable, trainer):  # type: ignore[misc]
        counted: Any = None

        def training_step(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
            if isinstance(inputs, Mapping):
                ids = (v for name, v in inputs.items() if name.endswith("input_ids"))
                own = sum(value.numel() for value in ids)
                self.counted.num_tokens += own * self.args.world_size
            return super().training_step(model, inputs, *given, **named)

    Counting.__name__ = trainer.__name__
    return Counting


def near_target(completions: list[Any], target: list[str], **_: Any) -> list[float]:
    """A reward for GRPO: 1 for an answer that holds the target, else how alike they are."""
    made = []
    for completion, wanted in zip(completions, target, strict=True):
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        alike = difflib.SequenceMatcher(None, text.strip(), wanted.strip()).ratio()
        made.append(1.0 if wanted.strip() in text else alike)
    return made
