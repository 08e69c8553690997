"""What scikit-learn makes of the same texts, as one would who has ten minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmos.programs.task.conll import Sentence
from llmos.programs.train.scores import entities

CLASSIFIER = "scikit-learn, TF-IDF and logistic regression"
TAGGER = "scikit-learn, logistic regression on features of a token and its neighbours"


def classified(learned: Sequence[tuple[str, str]], held: Sequence[tuple[str, str]]) -> float:
    """The share that is right: words and pairs of them, or of characters where there are no spaces
    between words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    is_spaced = sum(text.count(" ") for text, _ in learned) > 3 * len(learned)
    words = TfidfVectorizer(
        analyzer="word" if is_spaced else "char", ngram_range=(1, 2), sublinear_tf=True
    )
    model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    texts, labels = zip(*learned, strict=True)
    model.fit(texts, labels)
    tested, truth = zip(*held, strict=True)
    return float(model.score(tested, truth))


def tagged(learned: Sequence[Sentence], held: Sequence[Sentence]) -> float:
    """F1 of entities. Every token is told by itself: no tag sees another."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(DictVectorizer(), LogisticRegression(C=1.0, max_iter=200))
    model.fit(
        [one for sentence in learned for one in features(sentence.tokens)],
        [tag for sentence in learned for tag in sentence.tags],
    )
    said = [model.predict(list(features(sentence.tokens))).tolist() for sentence in held]
    return entities([sentence.tags for sentence in held], said)["f1"]


def features(tokens: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of each token: itself, its ends and its shape, and those of the tokens beside it."""
    for number, token in enumerate(tokens):
        found: dict[str, Any] = {"word": token.lower(), "shape": shape(token)}
        for size in (2, 3):
            found[f"first {size}"], found[f"last {size}"] = token[:size], token[-size:].lower()
        for step in (-2, -1, 1, 2):
            at = number + step
            beside = tokens[at] if 0 <= at < len(tokens) else ""
            found[f"word {step}"], found[f"shape {step}"] = beside.lower(), shape(beside)
        yield found


def shape(token: str) -> str:
    """Capitals, small letters, digits, and what else there is; each once in a row."""
    kinds = (
        "X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in token
    )
    made = ""
    for kind in kinds:
        if made[-1:] != kind:
            made += kind
    return made
