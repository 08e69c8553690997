"""What TRL teaches language models: to follow, to prefer, to score, to be rewarded.

Texts are plain, or `messages` as in chats where the base's tokenizer has a template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmos.errors import InvalidRequest, PluginError
from llmos.programs.train.examples import Examples
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import Objective, Recipe
from llmos.programs.train.rows import Rows, labels_of, texts_of
from llmos.programs.train.work import Setting, Work

TRUE, FALSE = ("true", "1", "yes", "good"), ("false", "0", "no", "bad")


class Texts:
    """Rows for a trainer of TRL, which makes tokens of them itself. `trainer` is set later."""

    trainer: Any = None

    def __init__(self, split: str, rows: list[dict[str, Any]]) -> None:
        from datasets import Dataset

        self.split = split
        self.rows = rows
        self.dataset = Dataset.from_list(rows)
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self.rows)

    def head(self, number: int) -> Texts:
        return self


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for a column that is missing, PluginError without TRL."""
    try:
        import trl  # noqa: F401
    except ImportError:
        raise PluginError("this objective needs an extra: pip install 'llmos[train]'") from None
    import datasets

    datasets.disable_progress_bars()
    recipe = setting.recipe
    tokenizer = setting.tokenizer(())
    if recipe.objective is Objective.REWARD:
        kind, fields = "AutoModelForSequenceClassification", {"num_labels": 1}
    else:
        kind, fields = "AutoModelForCausalLM", {}
    model = load_or_make(setting, kind, tokenizer, **fields)
    setting.check_vocabulary(model, tokenizer)
    read = READERS[recipe.objective]
    examples: dict[str, Any] = {
        split: Texts(split, read(rows, recipe, split)) for split, rows in setting.rows.items()
    }
    if recipe.objective is Objective.GRPO:
        from llmos.programs.train.objectives.rewarded import Rewarded

        half = max(1, recipe.model.max_length // 2)
        by = Rewarded(tokenizer, half, half)
        return Work(model, tokenizer, examples, by.score, metric="reward", show=by.show)
    return Work(model, tokenizer, examples, score, is_shared_score=True)


def score(model: Any, measured: Examples) -> dict[str, float]:
    """As the trainer measures its own objective; nothing of what it learns from."""
    texts: Any = measured
    held = getattr(texts.trainer, "eval_dataset", None) or {}
    if texts.split not in held:
        return {}
    told = texts.trainer.evaluate(held[texts.split])
    names = {name.removeprefix("eval_"): value for name, value in told.items()}
    wanted = {name: value for name, value in names.items() if name not in IGNORED}
    return {name: float(v) for name, v in wanted.items() if isinstance(v, int | float)}


IGNORED = ("runtime", "samples_per_second", "steps_per_second", "epoch", "num_tokens")


def _prompts(rows: Rows, recipe: Recipe, split: str) -> list[Any]:
    return list(texts_of(rows, recipe.data.text, split))


def _sft(rows: Rows, recipe: Recipe, split: str) -> list[dict[str, Any]]:
    if "messages" in rows[0]:
        return [{"messages": _messages(row, number, split)} for number, row in enumerate(rows)]
    if recipe.data.target in rows[0]:
        targets = texts_of(rows, recipe.data.target, split)
        prompts = _prompts(rows, recipe, split)
        return [{"prompt": p, "completion": t} for p, t in zip(prompts, targets, strict=True)]
    return [{"text": text} for text in _prompts(rows, recipe, split)]


def _messages(row: Mapping[str, Any], number: int, split: str) -> list[dict[str, str]]:
    said = row.get("messages")
    if not isinstance(said, list) or not all(isinstance(m, dict) and "role" in m for m in said):
        raise InvalidRequest(
            f"{split}: row {number + 1} has no list of messages", param=f"files.{split}"
        )
    return [{"role": str(m["role"]), "content": str(m.get("content") or "")} for m in said]


def _pairs(rows: Rows, recipe: Recipe, split: str) -> list[dict[str, Any]]:
    chosen = texts_of(rows, "chosen", split)
    rejected = texts_of(rows, "rejected", split)
    made = [{"chosen": c, "rejected": r} for c, r in zip(chosen, rejected, strict=True)]
    if recipe.data.text not in rows[0] and recipe.objective is Objective.REWARD:
        return made
    prompts = _prompts(rows, recipe, split)
    return [{"prompt": p, **one} for p, one in zip(prompts, made, strict=True)]


def _judged(rows: Rows, recipe: Recipe, split: str) -> list[dict[str, Any]]:
    targets = texts_of(rows, recipe.data.target, split)
    made = []
    labels = labels_of(rows, recipe.data.label, split)
    prompts = _prompts(rows, recipe, split)
    for number, label in enumerate(labels):
        if label.lower() not in TRUE + FALSE:
            raise InvalidRequest(
                f"{split}: row {number + 1}: {label[:64]!r} is neither true nor false",
                param=f"files.{split}",
            )
        is_good = label.lower() in TRUE
        made.append({"prompt": prompts[number], "completion": targets[number], "label": is_good})
    return made


def _rewarded(rows: Rows, recipe: Recipe, split: str) -> list[dict[str, Any]]:
    prompts = _prompts(rows, recipe, split)
    targets = texts_of(rows, recipe.data.target, split)
    return [{"prompt": p, "target": t} for p, t in zip(prompts, targets, strict=True)]


READERS: dict[Objective, Callable[[Rows, Recipe, str], list[dict[str, Any]]]] = {
    Objective.SFT: _sft,
    Objective.DPO: _pairs,
    Objective.REWARD: _pairs,
    Objective.KTO: _judged,
    Objective.GRPO: _rewarded,
}
