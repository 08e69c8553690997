"""Vectors in which a text is near its pair and far from others' (InfoNCE; Oord et al., 2018)."""
# ruff: noqa: N803, N806 - tensor names end in shapes: Batch, Length, Hidden

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest
from llmos.programs.train import vocabulary
from llmos.programs.train.examples import Batch, Examples, mask_of, padded
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import texts_of
from llmos.programs.train.work import Setting, Work

MODULES = "sentence_transformers.models"


def prepare(setting: Setting) -> Work:
    """Pairs of `text` and `pair`; all others of a batch are what each is told from."""
    recipe, rows = setting.recipe, setting.rows
    data = recipe.data
    if not data.pair:
        raise InvalidRequest(
            "recipe: data.pair: embed learns from pairs: name the second column",
            param="recipe.data.pair",
        )
    if recipe.training.batch_size < 2:
        raise InvalidRequest(
            "recipe: training.batch_size: a pair is told from others of its batch: 2 at least",
            param="recipe.training.batch_size",
        )
    texts = {s: texts_of(rows[s], data.text, s) for s in rows}
    pairs = {s: texts_of(rows[s], data.pair, s) for s in rows}
    tokenizer = setting.tokenizer([*texts[TRAIN], *pairs[TRAIN]])
    model = load_or_make(setting, "AutoModel", tokenizer)
    setting.check_vocabulary(model, tokenizer)
    examples = {}
    for split in rows:
        ones = vocabulary.encode(tokenizer, texts[split], recipe.model.max_length)
        others = vocabulary.encode(tokenizer, pairs[split], recipe.model.max_length)
        made = [{"one": a, "other": b} for a, b in zip(ones, others, strict=True)]
        lengths = [len(row["one"]) + len(row["other"]) for row in made]
        collate = _Collate(tokenizer.pad_token_id)
        examples[split] = Examples(made, lengths, collate, recipe.training.seed)
    loss = _Contrast(recipe.training.temperature)
    width = int(model.config.hidden_size)
    return Work(
        model,
        tokenizer,
        examples,
        lambda model, measured: score(model, measured, loss),
        metric="mrr",
        loss=loss,
        finish=lambda folder: write_pooling(folder, width),
    )


class _Collate:
    """Both texts of every row."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
        ones, others = [r["one"] for r in rows], [r["other"] for r in rows]
        return {
            "one": padded(ones, self._pad_id),
            "one_mask": mask_of(ones),
            "other": padded(others, self._pad_id),
            "other_mask": mask_of(others),
        }


def vectors(model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens of each text, of length one."""
    hidden_BLH = model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLH.dtype)
    mean_BH = (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
    return torch.nn.functional.normalize(mean_BH, dim=-1)


class _Contrast:
    """Cross entropy over the batch, both ways."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, model: Any, batch: Batch) -> torch.Tensor:
        one_BH = vectors(model, batch["one"], batch["one_mask"])
        other_BH = vectors(model, batch["other"], batch["other_mask"])
        scores_BB = one_BH @ other_BH.T / self._temperature
        target_B = torch.arange(len(scores_BB), device=scores_BB.device)
        entropy = torch.nn.functional.cross_entropy
        return (entropy(scores_BB, target_B) + entropy(scores_BB.T, target_B)) / 2


def score(
    model: Any, examples: Examples, loss: _Contrast, batch_size: int = 32
) -> dict[str, float]:
    """How often, and at which place, a text finds its pair among all there are."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    ones, others, total = [], [], 0.0
    with torch.inference_mode():
        for at in range(0, len(examples), batch_size):
            numbers = list(range(at, min(at + batch_size, len(examples))))
            batch = {k: v.to(device) for k, v in examples.batch(numbers).items()}
            ones.append(vectors(model, batch["one"], batch["one_mask"]))
            others.append(vectors(model, batch["other"], batch["other_mask"]))
            total += float(loss(model, batch)) * len(numbers)
    model.train(was_training)
    one_NH, other_NH = torch.cat(ones), torch.cat(others)
    reciprocal, first = 0.0, 0
    for at in range(0, len(one_NH), 1024):  # not all N x N at once
        scores_PN = one_NH[at : at + 1024] @ other_NH.T
        own_P1 = scores_PN.diagonal(at)[:, None]
        places_P = (scores_PN > own_P1).sum(1) + 1
        reciprocal += float((1 / places_P).sum())
        first += int((places_P == 1).sum())
    number = len(examples)
    return {"loss": total / number, "mrr": reciprocal / number, "recall_at_1": first / number}


def write_pooling(folder: Path, width: int) -> None:
    """That its vectors are means, of length one: as sentence-transformers says it."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{MODULES}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{MODULES}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{MODULES}.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2), "utf-8")
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2), "utf-8")
