"""Named entities: which were found, by seqeval's rules (which are conlleval's), and by spans.

Of tags, an entity is right if its type, its first and its last token are. A tag that cannot go on
with the entity before it begins one, unless the reading is strict: then it is none.

Legend: N sentences, T types.
"""

# ruff: noqa: N815 (array names carry their shape)
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.metrics.classification import Average, table_of
from llmos.programs.metrics.score import Sums, mean, own_cells

OUTSIDE = "O"
BEGINS = "BS"
ENDS = "ES"
PREFIXES = frozenset("BIES")


class Entity(NamedTuple):
    """Of a sentence: tokens (or characters) `start` to `end`, which is not in it."""

    type: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """Prefix and type. Raises InvalidRequest for what is no tag of BIO, IOB or IOBES."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, name = tag.partition("-")
    if prefix not in PREFIXES or not dash or not name:
        text = f"{tag[:64]!r} is no tag: O, or B-, I-, E-, S- and a type"
        raise InvalidRequest(text, param="data")
    return prefix, name


def entities_of(tags: Sequence[str]) -> set[Entity]:
    """Of one sentence, as seqeval reads them where no scheme is named."""
    found, start = set(), 0
    before, type_before = OUTSIDE, ""
    for number, tag in enumerate([*tags, OUTSIDE]):
        prefix, name = split_tag(tag)
        if before != OUTSIDE and _ends(before, prefix, type_before, name):
            found.add(Entity(type_before, start, number))
        if prefix != OUTSIDE and _starts(before, prefix, type_before, name):
            start = number
        before, type_before = prefix, name
    return found


def _ends(before: str, prefix: str, type_before: str, name: str) -> bool:
    return before in ENDS or prefix in (OUTSIDE, *BEGINS) or type_before != name


def _starts(before: str, prefix: str, type_before: str, name: str) -> bool:
    return prefix in BEGINS or before in (OUTSIDE, *ENDS) or type_before != name


def strict_entities_of(tags: Sequence[str]) -> set[Entity]:
    """Of one sentence in IOB2: each begins with B-, and goes on with I- of its type."""
    found: set[Entity] = set()
    start, name_open = 0, ""
    for number, tag in enumerate([*tags, OUTSIDE]):
        prefix, name = split_tag(tag)
        if name_open and (prefix != "I" or name != name_open):
            found.add(Entity(name_open, start, number))
            name_open = ""
        if prefix == "B":
            start, name_open = number, name
        elif prefix not in ("I", OUTSIDE):
            raise InvalidRequest(f"{tag[:64]!r} is no tag of IOB2", param="data")
    return found


class Found(NamedTuple):
    """Of a set of sentences, a row for each: entities by type [N, T]."""

    types: list[str]
    right_NT: Any
    there_NT: Any
    said_NT: Any


def match(
    gold: Sequence[Iterable[Entity]],
    said: Sequence[Iterable[Entity]],
    types: Iterable[str] = (),
) -> Found:
    """With these types and all that occur. Raises InvalidRequest for no sentences, or no entity in
    any that is given."""
    if len(gold) != len(said):
        raise ValueError(f"{len(gold)} sentences, {len(said)} answers")
    if not gold:
        raise InvalidRequest("there are no sentences to score", param="data")
    pairs = [(set(a), set(b)) for a, b in zip(gold, said, strict=True)]
    if not any(there for there, _ in pairs):
        raise InvalidRequest("no sentence of the data has an entity", param="data")
    types = sorted({*types, *(entity.type for a, b in pairs for entity in (*a, *b))})
    index = {name: number for number, name in enumerate(types)}
    right, there, say = (np.zeros((len(pairs), len(types))) for _ in range(3))
    for number, (a, b) in enumerate(pairs):
        for table, entities in ((right, a & b), (there, a), (say, b)):
            for entity in entities:
                table[number, index[entity.type]] += 1
    return Found(types, right, there, say)


def entity_scores(of: Found) -> list[Sums]:
    """F1, precision and recall; `f1_micro` is the one that is commonly told."""
    parts = np.concatenate([of.right_NT, of.there_NT, of.said_NT], axis=1)
    cells = own_cells(len(parts))
    return [
        Sums(f"{figure}_{average}", parts, cells, Average(figure, average))
        for average in ("micro", "macro", "weighted")
        for figure in ("f1", "precision", "recall")
    ]


def tag_accuracy(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> Sums:
    """Of tokens, as seqeval's `accuracy_score`."""
    both = zip(gold, said, strict=True)
    right = [sum(x == y for x, y in zip(a, b, strict=True)) for a, b in both]
    parts = np.array([right, list(map(len, gold))], dtype=np.float64).T
    return Sums("tag_accuracy", parts, own_cells(len(parts)), mean)


def type_table(of: Found) -> list[dict[str, Any]]:
    """A row for each type."""
    return table_of(of.types, of.right_NT.sum(0), of.there_NT.sum(0), of.said_NT.sum(0))
