"""What of many vectors is nearest to each of others: compared one with each other, no index.

Vectors lie in files and pass through memory a block at a time, however many there are.

Legend: Queries, Documents, Hidden, K best so far, Block.
"""
# ruff: noqa: N803, N806 - arrays name their axes

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.evaluate.vectors import ITEM_BYTES, of_length_1

DEPTH = 1000
"""Documents that a query's ranking holds: what MRR and MAP look at, as trec_eval's."""

BLOCK_BYTES = 8 << 20
MAX_BLOCK = 4096
QUERIES_AT_ONCE = 256
"""For each so many the documents are read once."""


class Stored(NamedTuple):
    """Vectors of length 1 in a file, float32, and whose each is."""

    path: Path
    numbers: Sequence[int]
    width: int

    def blocks(self, size: int) -> Iterator[Any]:
        """At most so many at once."""
        with self.path.open("rb") as file:
            while (numbers := np.fromfile(file, "<f4", size * self.width)).size:
                yield numbers.reshape(-1, self.width)


def store(found: Iterable[tuple[int, str]], path: Path) -> Stored:
    """Numbered vectors, in base64 as `Vectors` keeps them. Raises InvalidRequest where they are of
    several sizes."""
    numbers, width, filled = array("q"), 0, 0
    block_BH = np.empty((0, 0), "<f4")
    with path.open("wb") as file:
        for number, encoded in found:
            vector_H = np.frombuffer(b64decode(encoded), "<f4")
            if not width:
                width = len(vector_H)
                block_BH = np.empty((_block_size(width), width), "<f4")
            if len(vector_H) != width:
                raise InvalidRequest("the model gave vectors of several sizes", param="model")
            block_BH[filled] = vector_H
            numbers.append(number)
            filled += 1
            if filled == len(block_BH):
                of_length_1(block_BH).astype("<f4").tofile(file)
                filled = 0
        of_length_1(block_BH[:filled]).astype("<f4").tofile(file)
    return Stored(path, numbers, width)


def _block_size(width: int) -> int:
    return min(MAX_BLOCK, max(1, BLOCK_BYTES // (ITEM_BYTES * width)))


def nearest(queries: Stored, documents: Stored) -> Iterator[tuple[int, Any]]:
    """Of each query, by its number, the places of the nearest documents, [K] with K at most DEPTH;
    of equals the one that is first in the corpus. Raises InvalidRequest where queries are of
    another size than documents."""
    if queries.numbers and queries.width != documents.width:
        raise InvalidRequest("vectors of queries and documents are of two sizes", param="model")
    numbers = iter(queries.numbers)
    for queries_QH in queries.blocks(QUERIES_AT_ONCE) if queries.numbers else ():
        best = [_Best() for _ in queries_QH]
        start = 0
        for documents_DH in documents.blocks(_block_size(documents.width)):
            for one, cosines_D in zip(best, queries_QH @ documents_DH.T, strict=True):
                one.add(cosines_D, start)
            start += len(documents_DH)
        for one in best:
            yield next(numbers), one.places_K


class _Best:
    """Of one query, so far, the nearest first."""

    def __init__(self) -> None:
        self.places_K = np.empty(0, np.int32)
        self._cosines_K = np.empty(0, np.float32)

    def add(self, cosines_D: Any, start: int) -> None:
        """Documents from place `start` on; those that were added before are before them."""
        if len(self.places_K) < DEPTH:
            chosen = np.arange(len(cosines_D))
        else:
            chosen = np.flatnonzero(cosines_D > self._cosines_K[-1])
        if not len(chosen):
            return
        cosines = np.concatenate((self._cosines_K, cosines_D[chosen]))
        places = np.concatenate((self.places_K, (start + chosen).astype(np.int32)))
        order = np.argsort(-cosines, kind="stable")[:DEPTH]
        self._cosines_K, self.places_K = cosines[order], places[order]
