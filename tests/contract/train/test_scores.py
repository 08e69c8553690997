"""What training measures is what scikit-learn and seqeval would say, on random cases."""

from __future__ import annotations

import random
import warnings

import pytest
import seqeval.metrics
import sklearn.metrics

from llmos.programs.train.scores import are_entities, classification, entities, words

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def sentences(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Tags, and guesses of which half are right."""
    rng = random.Random(seed)
    truth = [rng.choices(TAGS, k=rng.randint(1, 9)) for _ in range(rng.randint(1, 30))]
    guess = [[rng.choice((tag, rng.choice(TAGS))) for tag in row] for row in truth]
    return truth, guess


@pytest.mark.parametrize("seed", range(20))
def test_classes(seed: int) -> None:
    rng = random.Random(seed)
    truth = [rng.randrange(5) for _ in range(rng.randint(1, 60))]
    guess = [rng.choice((label, rng.randrange(5))) for label in truth]
    assert classification(truth, guess, 7) == pytest.approx(
        {
            "accuracy": sklearn.metrics.accuracy_score(truth, guess),
            "f1_macro": sklearn.metrics.f1_score(truth, guess, average="macro"),
        }
    )


@pytest.mark.parametrize("seed", range(20))
def test_entities(seed: int) -> None:
    truth, guess = sentences(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {
            name: getattr(seqeval.metrics, f"{name}_score")(truth, guess, zero_division=0)
            for name in ("precision", "recall", "f1")
        }
    theirs["accuracy"] = seqeval.metrics.accuracy_score(truth, guess)
    assert entities(truth, guess) == pytest.approx(theirs)


def test_words_with_a_label_each() -> None:
    truth, guess = [["DET", "NOUN"], ["VERB"]], [["DET", "VERB"], ["O"]]
    assert words(truth, guess) == pytest.approx({"accuracy": 1 / 3, "f1_macro": 1 / 4})


def test_one_class_or_no_entity_at_all_is_measured_too() -> None:
    assert classification([1, 1], [1, 1], 2) == {"accuracy": 1.0, "f1_macro": 1.0}
    told = entities([["O", "O"]], [["O", "O"]])
    assert told == {"accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


@pytest.mark.parametrize(
    ("labels", "are"),
    [(TAGS, True), (["B-pos", "O"], True), (["O", "B-PER", "NOUN"], False), (["DET", "O"], False)],
)
def test_which_labels_are_of_entities(labels: list[str], are: bool) -> None:
    assert are_entities(labels) is are
