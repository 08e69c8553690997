"""A number for every text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest
from llmos.programs.train import vocabulary
from llmos.programs.train.examples import Batch, Examples, by_length, mask_of, padded
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import labels_of, texts_of
from llmos.programs.train.work import Setting, Work, losses


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for what is no number."""
    recipe, rows = setting.recipe, setting.rows
    texts = {split: texts_of(rows[split], recipe.data.text, split) for split in rows}
    tokenizer = setting.tokenizer(texts[TRAIN])
    model = load_or_make(
        setting,
        "AutoModelForSequenceClassification",
        tokenizer,
        num_labels=1,
        problem_type="regression",
    )
    setting.check_vocabulary(model, tokenizer)
    examples = {}
    for split, found in texts.items():
        numbers = _numbers(labels_of(rows[split], recipe.data.label, split), split)
        ids = vocabulary.encode(tokenizer, found, recipe.model.max_length)
        made = [{"ids": one, "label": y} for one, y in zip(ids, numbers, strict=True)]
        lengths = [len(one) for one in ids]
        collate = _Collate(tokenizer.pad_token_id)
        examples[split] = Examples(made, lengths, collate, recipe.training.seed)
    return Work(model, tokenizer, examples, score)


def _numbers(found: list[str], split: str) -> list[float]:
    made = []
    for row, text in enumerate(found):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InvalidRequest(
                f"{split}: row {row + 1}: {text[:64]!r} is no number", param=f"files.{split}"
            )
        made.append(number)
    return made


class _Collate:
    """Rows to tensors."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
        ids = [row["ids"] for row in rows]
        return {
            "input_ids": padded(ids, self._pad_id),
            "attention_mask": mask_of(ids),
            "labels": torch.tensor([row["label"] for row in rows], dtype=torch.float32),
        }


def score(model: Any, examples: Examples) -> dict[str, float]:
    """Squared and absolute error, and Pearson's correlation where both vary."""
    truth, guess = np.zeros(len(examples)), np.zeros(len(examples))
    for numbers, batch, outputs, _ in losses(model, examples, by_length(examples, 64)):
        truth[numbers] = batch["labels"].cpu().numpy()
        guess[numbers] = outputs.logits[:, 0].float().cpu().numpy()
    mse = float(np.mean((truth - guess) ** 2))
    told = {"loss": mse, "mse": mse, "mae": float(np.mean(np.abs(truth - guess)))}
    if truth.std() > 0 and guess.std() > 0:
        told["pearson"] = float(np.corrcoef(truth, guess)[0, 1])
    return told
