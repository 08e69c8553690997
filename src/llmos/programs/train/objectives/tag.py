"""A label for every word: names, parts of speech."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.train.examples import Batch, Examples, by_length, mask_of, padded
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import Rows, no_column
from llmos.programs.train.scores import entities
from llmos.programs.train.work import Setting, Work, losses


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

    def score(model: Any, measured: Examples) -> dict[str, float]:
        return _score(model, measured, labels)

    return Work(model, tokenizer, examples, score, metric="f1", facts={"labels": labels})


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
    """The first piece of a word has its label, the others have none."""
    fast = tokenizer.backend_tokenizer
    made = []
    for number, encoded in enumerate(fast.encode_batch(words, is_pretokenized=True)):
        labels, before = [], None
        for word in encoded.word_ids:
            if word is None or word == before:
                labels.append(-100)
            else:
                tag = tags[number][word]
                if tag not in known:
                    raise InvalidRequest(
                        f"{split}: row {number + 1} has the label {tag[:64]!r}, which no example "
                        "to learn from has",
                        param=f"files.{split}",
                    )
                labels.append(known[tag])
            before = word
        made.append({"ids": encoded.ids, "labels": labels})
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
            "labels": padded([row["labels"] for row in rows], -100),
        }


def _score(model: Any, examples: Examples, labels: list[str]) -> dict[str, float]:
    truth: list[list[str]] = [[] for _ in range(len(examples))]
    guess: list[list[str]] = [[] for _ in range(len(examples))]
    total = 0.0
    for numbers, batch, outputs, loss in losses(model, examples, by_length(examples, 64)):
        best = outputs.logits.argmax(-1).cpu().numpy()
        true = batch["labels"].cpu().numpy()
        for place, number in enumerate(numbers):
            said = true[place] != -100
            truth[number] = [labels[i] for i in true[place][said]]
            guess[number] = [labels[i] for i in best[place][said]]
        total += loss * len(numbers)
    return {"loss": total / len(examples), **entities(truth, guess)}
