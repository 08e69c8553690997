"""The piece of a text that answers a question."""
# ruff: noqa: N803, N806 - tensor names end in shapes: Length

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest
from llmos.programs.train.examples import Batch, Examples, by_length, mask_of, padded
from llmos.programs.train.models import load_or_make, reads_types
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import Rows, no_column, texts_of
from llmos.programs.train.work import Setting, Work, losses

LONGEST_ANSWER = 30


def prepare(setting: Setting) -> Work:
    """`text` is what is read, `pair` the question, `label` the answer. Raises InvalidRequest for an
    answer that its text does not hold."""
    recipe, rows = setting.recipe, setting.rows
    data = recipe.data
    question = data.pair or "question"
    texts = {s: texts_of(rows[s], data.text, s) for s in rows}
    questions = {s: texts_of(rows[s], question, s) for s in rows}
    tokenizer = setting.tokenizer([*texts[TRAIN], *questions[TRAIN]])
    model = load_or_make(setting, "AutoModelForQuestionAnswering", tokenizer)
    setting.check_vocabulary(model, tokenizer)
    examples = {}
    for split in rows:
        spans = _spans(rows[split], data.label, texts[split], split)
        pairs = list(zip(questions[split], texts[split], strict=True))
        made = _encode(tokenizer, pairs, spans, recipe.model.max_length)
        lengths = [len(row["ids"]) for row in made]
        collate = _Collate(tokenizer.pad_token_id, reads_types(model))
        examples[split] = Examples(made, lengths, collate, recipe.training.seed)
    return Work(model, tokenizer, examples, score, metric="f1")


def _spans(rows: Rows, column: str, texts: list[str], split: str) -> list[tuple[int, int]]:
    made = []
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if column not in row:
            raise no_column(row, column, split)
        value: Any = row[column]
        start = None
        if isinstance(value, dict):
            start = value.get("start")
            value = value.get("text")
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"{split}: row {number + 1} has no answer", param=f"files.{split}")
        at = text.find(value) if start is None else int(start)
        if at < 0 or text[at : at + len(value)] != value:
            raise InvalidRequest(
                f"{split}: row {number + 1}: its text does not hold {value[:64]!r}",
                param=f"files.{split}",
            )
        made.append((at, at + len(value)))
    return made


def _encode(
    tokenizer: Any,
    pairs: list[tuple[str, str]],
    spans: list[tuple[int, int]],
    max_length: int,
) -> list[dict[str, Any]]:
    """Questions are kept whole, texts are cut. An answer that was cut off is the first token."""
    fast = tokenizer.backend_tokenizer
    fast.no_padding()
    fast.enable_truncation(max_length, strategy="longest_first")
    made = []
    for encoded, (begin, end) in zip(fast.encode_batch(pairs), spans, strict=True):
        inside = [
            place
            for place, (sequence, (low, high)) in enumerate(
                zip(encoded.sequence_ids, encoded.offsets, strict=True)
            )
            if sequence == 1 and low < end and high > begin
        ]
        first, last = (inside[0], inside[-1]) if inside else (0, 0)
        made.append({"ids": encoded.ids, "types": encoded.type_ids, "span": (first, last)})
    return made


class _Collate:
    """Rows to tensors."""

    def __init__(self, pad_id: int, has_types: bool) -> None:
        self._pad_id, self._has_types = pad_id, has_types

    def __call__(self, rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
        ids = [row["ids"] for row in rows]
        batch = {
            "input_ids": padded(ids, self._pad_id),
            "attention_mask": mask_of(ids),
            "start_positions": torch.tensor([row["span"][0] for row in rows]),
            "end_positions": torch.tensor([row["span"][1] for row in rows]),
        }
        if self._has_types:
            batch["token_type_ids"] = padded([row["types"] for row in rows], 0)
        return batch


def score(model: Any, examples: Examples) -> dict[str, float]:
    """Spans found exactly, and F1 of their tokens."""
    exact, overlap, total = 0, 0.0, 0.0
    for numbers, _, outputs, loss in losses(model, examples, by_length(examples, 32)):
        starts = outputs.start_logits.float().cpu().numpy()
        ends = outputs.end_logits.float().cpu().numpy()
        for place, number in enumerate(numbers):
            length = int(examples.lengths[number])
            first, last = _best(starts[place][:length], ends[place][:length])
            true = examples.rows[number]["span"]
            exact += (first, last) == tuple(true)
            shared = max(0, min(last, true[1]) - max(first, true[0]) + 1)
            overlap += 2 * shared / ((last - first + 1) + (true[1] - true[0] + 1))
        total += loss * len(numbers)
    number = len(examples)
    return {"loss": total / number, "exact": exact / number, "f1": overlap / number}


def _best(start_L: np.ndarray, end_L: np.ndarray) -> tuple[int, int]:
    """The likeliest span that does not end before it begins."""
    sums_LL = start_L[:, None] + end_L[None, :]
    allowed = np.triu(np.ones_like(sums_LL, dtype=bool)) & ~np.triu(
        np.ones_like(sums_LL, dtype=bool), LONGEST_ANSWER
    )
    place = int(np.where(allowed, sums_LL, -np.inf).argmax())
    return place // len(end_L), place % len(end_L)
