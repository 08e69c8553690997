"""A label for every word: names, parts of speech."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.metrics.entities import OUTSIDE
from llmos.programs.train.examples import Batch, Examples, by_length, mask_of, padded
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import Rows, no_column
from llmos.programs.train.scores import are_entities, entities
from llmos.programs.train.scores import words as word_scores
from llmos.programs.train.work import Setting, Work, losses

IGNORED = -100
"""The label of a piece that has none."""


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for a row whose words and labels are not as many, for labels that only
    another split has."""
    recipe, rows = setting.recipe, setting.rows
    data = recipe.data
    words = {s: _lists(rows[s], data.text, s) for s in rows}
    tags = {s: _lists(rows[s], data.label, s) for s in rows}
    for split in rows:
        _check_pairs(words[split], tags[split], split)
    labels = _labels(setting, tags[TRAIN])
    known = {name: number for number, name in enumerate(labels)}
    tokenizer = setting.tokenizer(" ".join(one) for one in words[TRAIN])
    model = load_or_make(
        setting,
        "AutoModelForTokenClassification",
        tokenizer,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id=known,
    )
    setting.check_vocabulary(model, tokenizer)
    examples = {}
    for split in rows:
        _limit(tokenizer, recipe.model.max_length)
        made = _encode(tokenizer, words[split], tags[split], known, split)
        lengths = [len(row["ids"]) for row in made]
        collate = _Collate(tokenizer.pad_token_id)
        examples[split] = Examples(made, lengths, collate, recipe.training.seed)

    told = entities if are_entities(labels) else word_scores

    def score(model: Any, measured: Examples) -> dict[str, float]:
        truth, guess, loss = _predict(model, measured, labels)
        return {"loss": loss, **told(truth, guess)}

    metric = "f1" if told is entities else "accuracy"
    return Work(model, tokenizer, examples, score, metric=metric, facts={"labels": labels})


def _lists(rows: Rows, column: str, split: str) -> list[list[str]]:
    made = []
    for number, row in enumerate(rows):
        if column not in row:
            raise no_column(row, column, split)
        value = row[column]
        value = value.split() if isinstance(value, str) else value
        if not isinstance(value, list) or not value:
            raise InvalidRequest(
                f"{split}: row {number + 1}: {column!r} holds no words", param=f"files.{split}"
            )
        made.append([str(one) for one in value])
    return made


def _check_pairs(words: list[list[str]], tags: list[list[str]], split: str) -> None:
    for number, (one, other) in enumerate(zip(words, tags, strict=True)):
        if len(one) != len(other):
            raise InvalidRequest(
                f"{split}: row {number + 1} has {len(one)} words and {len(other)} labels",
                param=f"files.{split}",
            )


def _labels(setting: Setting, tags: list[list[str]]) -> list[str]:
    if (kept := setting.kept.get("labels")) is not None:
        made: list[str] = json.loads(kept)
        return made
    labels = sorted({tag for row in tags for tag in row}, key=lambda tag: (tag != "O", tag))
    if len(labels) < 2:
        raise InvalidRequest(
            f"train: every word has the label {labels[0]!r}", param="recipe.data.label"
        )
    setting.kept["labels"] = json.dumps(labels)
    return labels


def _limit(tokenizer: Any, max_length: int) -> None:
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.enable_truncation(max_length)


def _encode(
    tokenizer: Any,
    words: list[list[str]],
    tags: list[list[str]],
    known: Mapping[str, int],
    split: str,
) -> list[dict[str, Any]]:
    """The first piece of a word has its label, the others have none; `words` says whose it is."""
    fast = tokenizer.backend_tokenizer
    made = []
    for number, encoded in enumerate(fast.encode_batch(words, is_pretokenized=True)):
        tagged = tags[number]
        strange = next((tag for tag in tagged if tag not in known), None)
        if strange is not None:
            raise InvalidRequest(
                f"{split}: row {number + 1} has the label {strange[:64]!r}, which no example "
                "to learn from has",
                param=f"files.{split}",
            )
        labels, firsts, before = [], [], None
        for word in encoded.word_ids:
            is_first = word is not None and word != before
            labels.append(known[tagged[word]] if is_first else IGNORED)
            if is_first:
                firsts.append(word)
            before = word
        made.append({"ids": encoded.ids, "labels": labels, "words": firsts, "tags": tagged})
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
            "labels": padded([row["labels"] for row in rows], IGNORED),
        }


def _predict(
    model: Any, examples: Examples, labels: list[str]
) -> tuple[list[list[str]], list[list[str]], float]:
    """Tags, guesses and the mean loss. A word that was cut off, or has no piece, is guessed `O`."""
    truth = [row["tags"] for row in examples.rows]
    guess = [[OUTSIDE] * len(row) for row in truth]
    total = 0.0
    for numbers, batch, outputs, loss in losses(model, examples, by_length(examples, 64)):
        best = outputs.logits.argmax(-1).cpu().numpy()
        is_told = batch["labels"].cpu().numpy() != IGNORED
        for place, number in enumerate(numbers):
            said = best[place][is_told[place]].tolist()
            for word, label in zip(examples.rows[number]["words"], said, strict=True):
                guess[number][word] = labels[label]
        total += loss * len(numbers)
    return truth, guess, total / len(examples)
