"""Against seqeval, on random tags."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import metrics as peer
from seqeval.scheme import IOB2

from llmos.errors import InvalidRequest
from llmos.programs.metrics.entities import (
    entities_of,
    entity_scores,
    match,
    strict_entities_of,
    tag_accuracy,
    type_table,
)
from llmos.programs.metrics.score import value_of

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
IOBES = [*BIO, "E-PER", "S-PER", "E-LOC", "S-LOC"]


def sentences(tags):
    tag = st.sampled_from(tags)
    one = st.integers(1, 8).flatmap(
        lambda size: st.tuples(
            st.lists(tag, min_size=size, max_size=size), st.lists(tag, min_size=size, max_size=size)
        )
    )
    return st.lists(one, min_size=1, max_size=5)


def check(rows, read, **scheme):
    gold, said = zip(*rows, strict=True)
    found_gold = [read(tags) for tags in gold]
    if not any(found_gold):
        with pytest.raises(InvalidRequest, match="no sentence of the data has an entity"):
            match(found_gold, found_gold)
        return
    found = match(found_gold, [read(tags) for tags in said])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for score in entity_scores(found):
            figure, average = score.name.split("_")
            theirs = getattr(peer, f"{figure}_score")(
                list(gold), list(said), average=average, zero_division=0, **scheme
            )
            assert value_of(score) == pytest.approx(theirs), score.name
        report = peer.classification_report(
            list(gold), list(said), output_dict=True, zero_division=0, **scheme
        )
    for row in type_table(found):
        assert row["f1"] == pytest.approx(report[row["label"]]["f1-score"])
        assert row["support"] == report[row["label"]]["support"]


@settings(max_examples=60, deadline=None)
@given(sentences(IOBES))
def test_scores_of_any_tags_are_those_of_seqeval(rows):
    check(rows, entities_of)


@settings(max_examples=60, deadline=None)
@given(sentences(BIO))
def test_strict_scores_are_those_of_its_strict_mode(rows):
    check(rows, strict_entities_of, mode="strict", scheme=IOB2)


@settings(max_examples=20, deadline=None)
@given(sentences(BIO))
def test_the_accuracy_of_tags_is_seqevals(rows):
    gold, said = map(list, zip(*rows, strict=True))
    assert value_of(tag_accuracy(gold, said)) == pytest.approx(peer.accuracy_score(gold, said))


@pytest.mark.parametrize("tag", ["PER", "B-", "B_PER", "X-PER", ""])
def test_what_is_no_tag_is_refused(tag):
    with pytest.raises(InvalidRequest, match="no tag"):
        entities_of(["O", tag])
