"""Named stretches of a text, from scores of its tokens.

As Transformers' pipeline aggregates them: tokens to words where a strategy wants one label for a
word, neighbours of one label to one entity (`B-` begins a new one), and of entities that two
windows of a long text both found the longer, then the surer one.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from llmos.drivers.encoder.payload import Row
from llmos.drivers.encoder.words import Words
from llmos.drivers.encoder.work import Open


class _Token(NamedTuple):
    scores: Any
    start: int
    end: int
    is_subword: bool


class _Found(NamedTuple):
    label: str
    score: float
    start: int
    end: int


def find_entities(
    opened: Open, params: dict[str, Any], labels: list[str], words: Words
) -> list[dict[str, Any]]:
    """In the order of the text."""
    text, strategy = opened.item.about, params["aggregation_strategy"]
    ignored = set(params["ignore_labels"])
    found: list[_Found] = []
    for row, scores_LC in zip(opened.item.rows, opened.results, strict=True):
        tokens = _tokens(row, _softmax(scores_LC), text, words)
        found += [e for e in _aggregate(tokens, strategy, labels) if e.label not in ignored]
    if len(opened.results) > 1:
        found = _without_overlaps(found)
    return [
        {
            "label": one.label,
            "score": one.score,
            "start": one.start,
            "end": one.end,
            "text": text[one.start : one.end],
        }
        for one in found
    ]


def _softmax(scores: Any) -> Any:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _tokens(row: Row, scores_LC: Any, text: str, words: Words) -> list[_Token]:
    ids = np.frombuffer(row.tokens, dtype=np.int32)
    offsets = np.frombuffer(row.offsets, dtype=np.int32).reshape(-1, 2)
    found = []
    for i, token_id in enumerate(ids.tolist()):
        if row.special[i]:
            continue
        start, end = int(offsets[i, 0]), int(offsets[i, 1])
        if words.marks_subwords:
            is_subword = len(words.token(token_id)) != end - start
        else:  # no tokenizer of this kind knows words: a space before it begins one
            is_subword = start > 0 and " " not in text[start - 1 : start + 1]
        is_subword = is_subword and token_id != words.unknown
        found.append(_Token(scores_LC[i], start, end, is_subword))
    return found


def _aggregate(tokens: list[_Token], strategy: str, labels: list[str]) -> list[_Found]:
    if strategy in ("none", "simple"):
        found = [_best(token.scores, token.start, token.end, labels) for token in tokens]
    else:
        found = [_word(group, strategy, labels) for group in _words(tokens)]
    return found if strategy == "none" else _grouped(found)


def _best(scores_C: Any, start: int, end: int, labels: list[str]) -> _Found:
    best = int(scores_C.argmax())
    return _Found(labels[best], float(scores_C[best]), start, end)


def _words(tokens: list[_Token]) -> list[list[_Token]]:
    groups: list[list[_Token]] = []
    for token in tokens:
        if groups and token.is_subword:
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def _word(group: list[_Token], strategy: str, labels: list[str]) -> _Found:
    if strategy == "first":
        scores = group[0].scores
    elif strategy == "max":
        scores = max(group, key=lambda token: float(token.scores.max())).scores
    else:
        scores = np.nanmean(np.stack([token.scores for token in group]), axis=0)
    return _best(scores, group[0].start, group[-1].end, labels)


def _tag(label: str) -> tuple[bool, str]:
    """Whether it begins an entity, and of what kind that is."""
    if label.startswith(("B-", "I-")):
        return label.startswith("B-"), label[2:]
    return False, label


def _grouped(found: list[_Found]) -> list[_Found]:
    groups: list[list[_Found]] = []
    for one in found:
        begins, tag = _tag(one.label)
        if groups and not begins and _tag(groups[-1][-1].label)[1] == tag:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [
        _Found(
            group[0].label.split("-", 1)[-1],
            float(np.nanmean([one.score for one in group])),
            group[0].start,
            group[-1].end,
        )
        for group in groups
    ]


def _without_overlaps(found: list[_Found]) -> list[_Found]:
    kept: list[_Found] = []
    for one in sorted(found, key=lambda e: e.start):
        last = kept[-1] if kept else None
        if last is None or not last.start <= one.start < last.end:
            kept.append(one)
        elif (one.end - one.start, one.score) > (last.end - last.start, last.score):
            kept[-1] = one
    return kept
