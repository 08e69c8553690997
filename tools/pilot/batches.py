"""Training batches: documents of like length side by side, padded on the right.

A batch depends on the seed and its number alone, so training can stop and go on anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer

from tools.pilot.corpus import documents
from tools.pilot.tokenizer import CONTEXT_LENGTH, END_OF_TEXT_ID, IGNORED, encode

TOKENS_PER_BATCH = 3072  # padding included
BATCHES_PER_POOL = 32

Batch = tuple[torch.Tensor, torch.Tensor]


def _pool(tokenizer: Tokenizer, seed: int, number: int) -> list[Batch]:
    """`BATCHES_PER_POOL` batches: int64 ids and labels, both (documents, length)."""
    stream = documents(f"train:{seed}:{number}")
    encoded: list[tuple[list[int], list[int]]] = []
    size = 0
    while size < TOKENS_PER_BATCH * BATCHES_PER_POOL * 1.1:  # a little over, for the padding
        ids, labels = encode(tokenizer, next(stream))
        encoded.append((ids[:CONTEXT_LENGTH], labels[:CONTEXT_LENGTH]))
        size += len(encoded[-1][0])
    encoded.sort(key=lambda pair: len(pair[0]))
    batches: list[Batch] = []
    rows: list[tuple[list[int], list[int]]] = []
    for pair in encoded:
        if rows and (len(rows) + 1) * len(pair[0]) > TOKENS_PER_BATCH:
            batches.append(_padded(rows))
            rows = []
        rows.append(pair)
    random.Random(f"order:{seed}:{number}").shuffle(batches)
    if len(batches) < BATCHES_PER_POOL:
        raise RuntimeError(f"pool {number} has only {len(batches)} batches")
    return batches[:BATCHES_PER_POOL]


def _padded(rows: list[tuple[list[int], list[int]]]) -> Batch:
    length = max(len(ids) for ids, _ in rows)
    ids = [row + [END_OF_TEXT_ID] * (length - len(row)) for row, _ in rows]
    labels = [row + [IGNORED] * (length - len(row)) for _, row in rows]
    return torch.tensor(ids), torch.tensor(labels)


def batches(tokenizer: Tokenizer, seed: int, first: int) -> Iterator[Batch]:
    """Batch `first` of the training of `seed` and all that follow."""
    number, skipped = divmod(first, BATCHES_PER_POOL)
    while True:
        yield from _pool(tokenizer, seed, number)[skipped:]
        number, skipped = number + 1, 0
