"""One label for every text, or for every pair of texts."""
# ruff: noqa: N806 - tensor names end in shapes: Batch, Classes

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest
from llmos.programs.train import vocabulary
from llmos.programs.train.examples import Batch, Examples, by_length, mask_of, padded
from llmos.programs.train.models import load_or_make, reads_types
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import Rows, labels_of, texts_of
from llmos.programs.train.scores import classification
from llmos.programs.train.work import Setting, Work, losses

MAX_LABELS = 10_000


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for labels that are missing, only one, or new in another split."""
    recipe, rows = setting.recipe, setting.rows
    labelled = {split: labels_of(rows[split], recipe.data.label, split) for split in rows}
    labels = _labels(setting, labelled[TRAIN])
    numbers = {name: number for number, name in enumerate(labels)}
    for split, found in labelled.items():
        _check_known(split, found, numbers)
    tokenizer = setting.tokenizer(_all_texts(setting, rows[TRAIN]))
    model = _model(setting, tokenizer, labels)
    setting.check_vocabulary(model, tokenizer)
    collate = _Collate(tokenizer.pad_token_id, reads_types(model))
    examples = {}
    for split, found in labelled.items():
        ids = _encode(setting, tokenizer, rows[split], split)
        made: list[dict[str, Any]] = [
            {"ids": one, "types": types, "label": numbers[label]}
            for (one, types), label in zip(ids, found, strict=True)
        ]
        lengths = [len(row["ids"]) for row in made]
        examples[split] = Examples(made, lengths, collate, recipe.training.seed)
    weights = _weights(setting, labelled[TRAIN], labels)

    def score(model: Any, measured: Examples) -> dict[str, float]:
        truth, guess, total = _predict(model, measured)
        return {"loss": total, **classification(truth, guess, len(labels))}

    texts = {id(examples[s]): _texts(setting, rows[s], s) for s in rows}

    def show(model: Any, measured: Examples, number: int) -> list[dict[str, Any]]:
        chosen = list(range(min(number, len(measured))))
        truth, guess, _ = _predict(model, measured, [chosen]) if chosen else ([], [], 0.0)
        return [
            {"input": texts[id(measured)][i], "output": labels[guess[i]], "expected": labels[t]}
            for i, t in zip(chosen, truth, strict=True)
        ]

    return Work(
        model=model,
        tokenizer=tokenizer,
        examples=examples,
        score=score,
        metric="accuracy",
        loss=_Weighed(weights) if weights is not None else None,
        show=show,
        facts={"labels": labels},
    )


def _labels(setting: Setting, found: list[str]) -> list[str]:
    """By the order the base knows them in, else by name; numbers by their size."""
    if (kept := setting.kept.get("labels")) is not None:
        made: list[str] = json.loads(kept)
        return made
    counts = Counter(found)
    if len(counts) < 2:
        raise InvalidRequest(
            f"train: every example has the label {found[0]!r}: there is nothing to tell apart",
            param="recipe.data.label",
        )
    if len(counts) > MAX_LABELS or len(counts) == len(found) > 50:
        raise InvalidRequest(
            f"train: {len(counts)} labels in {len(found)} examples: is this a column of labels?",
            param="recipe.data.label",
        )
    labels = sorted(counts, key=_by_size)
    setting.kept["labels"] = json.dumps(labels)
    return labels


def _by_size(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


def _check_known(split: str, found: list[str], numbers: Mapping[str, int]) -> None:
    for row, label in enumerate(found):
        if label not in numbers:
            raise InvalidRequest(
                f"{split}: row {row + 1} has the label {label[:64]!r}, which no example to learn "
                "from has",
                param=f"files.{split}",
            )


def _all_texts(setting: Setting, rows: Rows) -> list[str]:
    data = setting.recipe.data
    texts = texts_of(rows, data.text, TRAIN)
    return texts + (texts_of(rows, data.pair, TRAIN) if data.pair else [])


def _texts(setting: Setting, rows: Rows, split: str) -> list[str]:
    return texts_of(rows, setting.recipe.data.text, split)


def _encode(
    setting: Setting, tokenizer: Any, rows: Rows, split: str
) -> list[tuple[list[int], list[int] | None]]:
    data, longest = setting.recipe.data, setting.recipe.model.max_length
    texts = texts_of(rows, data.text, split)
    if data.pair:
        pairs = list(zip(texts, texts_of(rows, data.pair, split), strict=True))
        encoded: list[tuple[list[int], list[int] | None]] = vocabulary.encode_pairs(
            tokenizer, pairs, longest
        )
        return encoded
    made = vocabulary.encode(tokenizer, texts, longest)
    empty = next((row for row, ids in enumerate(made) if not ids), None)
    if empty is not None:
        raise InvalidRequest(f"{split}: row {empty + 1} has no text", param=f"files.{split}")
    return [(ids, None) for ids in made]


def _model(setting: Setting, tokenizer: Any, labels: list[str]) -> Any:
    return load_or_make(
        setting,
        "AutoModelForSequenceClassification",
        tokenizer,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
        problem_type="single_label_classification",
    )


class _Collate:
    """Rows to tensors."""

    def __init__(self, pad_id: int, has_types: bool) -> None:
        self._pad_id, self._has_types = pad_id, has_types

    def __call__(self, rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
        ids = [row["ids"] for row in rows]
        batch = {
            "input_ids": padded(ids, self._pad_id),
            "attention_mask": mask_of(ids),
            "labels": torch.tensor([row["label"] for row in rows]),
        }
        if self._has_types and rows[0]["types"] is not None:
            batch["token_type_ids"] = padded([row["types"] for row in rows], 0)
        return batch


class _Weighed:
    """Cross entropy in which classes count differently."""

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights

    def __call__(self, model: Any, batch: Batch) -> torch.Tensor:
        labels_B = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits_BC = model(**inputs).logits
        weights_C = self._weights.to(logits_BC.device, logits_BC.dtype)
        return torch.nn.functional.cross_entropy(logits_BC, labels_B, weight=weights_C)


def _weights(setting: Setting, found: list[str], labels: list[str]) -> torch.Tensor | None:
    wanted = setting.recipe.training.class_weights
    if wanted is None:
        return None
    if wanted == "balanced":
        counts = Counter(found)
        return torch.tensor([len(found) / (len(labels) * counts[name]) for name in labels])
    assert isinstance(wanted, dict)
    if unknown := sorted(set(wanted) - set(labels)):
        known = ", ".join(labels[:20])
        raise InvalidRequest(
            f"recipe: class_weights: no label {unknown[0]!r}; there are {known}",
            param="recipe.training.class_weights",
        )
    return torch.tensor([float(wanted.get(name, 1.0)) for name in labels])


def _predict(
    model: Any, examples: Examples, batches: Sequence[list[int]] | None = None
) -> tuple[list[int], list[int], float]:
    """Labels, guesses in the rows' order, and the mean loss."""
    truth, guess = [0] * len(examples), [0] * len(examples)
    total, seen = 0.0, 0
    chosen = by_length(examples, 64) if batches is None else batches
    for numbers, batch, outputs, loss in losses(model, examples, chosen):
        best = outputs.logits.argmax(-1).tolist()
        for number, one, label in zip(numbers, best, batch["labels"].tolist(), strict=True):
            truth[number], guess[number] = label, one
        total += loss * len(numbers)
        seen += len(numbers)
    if batches is not None:
        seen_rows = [number for numbers in batches for number in numbers]
        truth, guess = [truth[i] for i in seen_rows], [guess[i] for i in seen_rows]
    return truth, guess, total / max(1, seen)
