"""One text from another: translation, summaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from llmos.programs.train import vocabulary
from llmos.programs.train.examples import Batch, Examples, by_length, mask_of, padded
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import texts_of
from llmos.programs.train.work import Setting, Work, losses

SAMPLE_TOKENS = 60


def prepare(setting: Setting) -> Work:
    """`target` from `text`."""
    recipe, rows = setting.recipe, setting.rows
    texts = {s: texts_of(rows[s], recipe.data.text, s) for s in rows}
    targets = {s: texts_of(rows[s], recipe.data.target, s) for s in rows}
    tokenizer = setting.tokenizer([*texts[TRAIN], *targets[TRAIN]])
    model = load_or_make(setting, "AutoModelForSeq2SeqLM", tokenizer)
    setting.check_vocabulary(model, tokenizer)
    examples = {}
    for split in rows:
        longest = recipe.model.max_length
        sources = vocabulary.encode(tokenizer, texts[split], longest)
        labels = vocabulary.encode(tokenizer, targets[split], longest)
        made = [{"ids": s, "labels": t} for s, t in zip(sources, labels, strict=True)]
        lengths = [len(row["ids"]) + len(row["labels"]) for row in made]
        collate = _Collate(tokenizer.pad_token_id)
        examples[split] = Examples(made, lengths, collate, recipe.training.seed)
    return Work(model, tokenizer, examples, score, show=_Show(tokenizer))


class _Collate:
    """Rows to tensors."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
        ids = [row["ids"] for row in rows]
        return {
            "input_ids": padded(ids, self._pad_id),
            "attention_mask": mask_of(ids),
            "labels": padded([row["labels"] for row in rows], -100),
        }


def score(model: Any, examples: Examples) -> dict[str, float]:
    """Loss and accuracy of each next token, given the right ones before it."""
    total, right, told = 0.0, 0, 0
    for numbers, batch, outputs, loss in losses(model, examples, by_length(examples, 32)):
        said = batch["labels"] != -100
        right += int((outputs.logits.argmax(-1)[said] == batch["labels"][said]).sum())
        told += int(said.sum())
        total += loss * len(numbers)
    return {"loss": total / len(examples), "token_accuracy": right / max(1, told)}


class _Show:
    """What comes of the first texts."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, model: Any, examples: Examples, number: int) -> list[dict[str, Any]]:
        chosen = list(range(min(number, len(examples))))
        if not chosen:
            return []
        batch = examples.batch(chosen)
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            made = model.generate(
                input_ids=batch["input_ids"].to(model.device),
                attention_mask=batch["attention_mask"].to(model.device),
                max_new_tokens=SAMPLE_TOKENS,
                do_sample=False,
                num_beams=1,
            )
        model.train(was_training)

        def read(ids: list[int]) -> str:
            return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

        return [
            {
                "input": read(examples.rows[i]["ids"]),
                "output": read(made[place].tolist()),
                "expected": read(examples.rows[i]["labels"]),
            }
            for place, i in enumerate(chosen)
        ]
