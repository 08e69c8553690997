"""Texts that are made up, and what is known of them, because they were made so.

Of sentiment: clauses of words that say something and words that say nothing, with negations,
degrees and contrasts; how good a text is is the sum of what its words say. Of meaning: several
concepts, said in two ways. Half of the words that say nothing are no words at all, so that a model
learns to leave alone what it does not know.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

from tools.small import lexicon

STEEPNESS = 1.6
NEGATIONS = {
    "en": ("not", "n't", "never", "hardly", "no", "without"),
    "zh": ("不", "没", "不太", "并不"),
}
DEGREES = {
    "en": (
        ("very", 1.4),
        ("really", 1.3),
        ("so", 1.2),
        ("a bit", 0.6),
        ("somewhat", 0.6),
        ("too", 0.8),
    ),
    "zh": (("很", 1.3), ("非常", 1.5), ("太", 1.4), ("有点", 0.7), ("比较", 0.9), ("特别", 1.4)),
}
TURNS = {"en": ("but", "yet", "however", "still"), "zh": ("但是", "但", "不过", "可是", "然而")}
CONCESSIONS = {"en": ("although", "though", "despite", "while"), "zh": ("虽然", "尽管")}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def own_words(language: str) -> list[str]:
    """Words of the grammar itself, which no list need have."""
    phrases = [*NEGATIONS[language], *TURNS[language], *CONCESSIONS[language]]
    phrases += [degree for degree, _ in DEGREES[language]]
    return [word for phrase in phrases for word in phrase.split()]


class Example(NamedTuple):
    """A text, and the probability that it is good."""

    text: str
    good: float


def sentiment(rng: random.Random, noise: float = 1.0) -> Example:
    """Three in five are English. `noise`, from 0: how much of it says nothing, and how long it is.

    A training begins without: what a word says is learned in a moment where it stands alone, and
    not at all where it is one of forty.
    """
    language = "en" if rng.random() < 0.6 else "zh"
    score, clauses = 0.0, []
    num_clauses = rng.choice((0, 1, 1, 2, 2)) if rng.random() < noise else 1
    mood = rng.choice((-1, 1))
    for _ in range(num_clauses):
        text, value = _clause(rng, language, noise, mood if rng.random() < 0.75 else -mood)
        clauses.append(text)
        score += value
    way = rng.random() if num_clauses else 0.4 * rng.random()
    if rng.random() >= noise:
        way = 1.0
    if way < 0.25:
        first, low = _clause(rng, language, noise, -mood)
        second, high = _clause(rng, language, noise, mood)
        clauses.append(_join(language, [first, rng.choice(TURNS[language]), second]))
        score += 0.4 * low + 1.4 * high
    elif way < 0.4:
        first, low = _clause(rng, language, noise, -mood)
        second, high = _clause(rng, language, noise, mood)
        clauses.append(_join(language, [rng.choice(CONCESSIONS[language]), first, ",", second]))
        score += 0.3 * low + 1.4 * high
    rng.shuffle(clauses)
    mark = rng.choice((", ", ". ", " - ", " ")) if language == "en" else rng.choice("，。 ；！")
    end = rng.choice((".", "!", "", "...")) if language == "en" else rng.choice("。！…")
    good = 1 / (1 + math.exp(-STEEPNESS * score))
    return Example(mark.join(clauses) + end, good)


def _clause(rng: random.Random, language: str, noise: float, mood: int) -> tuple[str, float]:
    words = _by_sign(language, mood)
    parts: list[str] = _filler(rng, language, int(noise * rng.randrange(0, 5)))
    value = 0.0
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3)) if rng.random() < noise else 1):
        word, weight = rng.choice(words)
        if abs(weight) < 1 and rng.random() < 0.3:
            word, weight = rng.choice(words)
        way = rng.random()
        if way < 0.14 * noise and abs(weight) >= 1:
            parts.append(rng.choice(NEGATIONS[language]))
            parts += _filler(rng, language, rng.choice((0, 0, 0, 1)))
            weight *= -0.7
        elif way < 0.34 * noise:
            degree, factor = rng.choice(DEGREES[language])
            parts.append(degree)
            weight *= factor
        parts.append(word)
        value += weight
        parts += _filler(rng, language, int(noise * rng.randrange(0, 4)))
    return _join(language, parts), value


@functools.cache
def _by_sign(language: str, mood: int) -> list[tuple[str, float]]:
    return [item for item in lexicon.weights(language).items() if item[1] * mood > 0]


def _filler(rng: random.Random, language: str, num_words: int) -> list[str]:
    neutral = lexicon.neutral(language)
    return [
        rng.choice(neutral) if rng.random() < 0.6 else _nonsense(rng, language)
        for _ in range(num_words)
    ]


def _nonsense(rng: random.Random, language: str) -> str:
    """A word that nobody knows."""
    if language == "zh":
        return "".join(rng.choices(lexicon.han(), k=rng.choice((1, 1, 2))))
    if rng.random() < 0.5:
        inner = rng.choices(lexicon.pieces(), k=rng.choice((2, 3)))
        return "".join(piece.lstrip("▁") for piece in inner)
    return "".join(rng.choices(LETTERS, k=rng.randrange(2, 6)))


def _join(language: str, parts: list[str]) -> str:
    return (" " if language == "en" else "").join(parts)


def pairs(rng: random.Random, num_pairs: int) -> Iterator[tuple[str, str]]:
    """Two texts each that mean the same; no two pairs mean the same."""
    seen: set[tuple[int, ...]] = set()
    concepts = lexicon.concepts()
    while len(seen) < num_pairs:
        chosen = tuple(sorted(rng.sample(range(len(concepts)), rng.choice((1, 2, 2, 3, 3, 4)))))
        if chosen in seen:
            continue
        seen.add(chosen)
        names = _names(rng)
        first, second = rng.choice((("en", "en"), ("en", "en"), ("zh", "zh"), ("en", "zh")))
        yield _said(rng, chosen, first, names), _said(rng, chosen, second, names)


def _names(rng: random.Random) -> list[str]:
    """Words that both texts of a pair share as they are: where texts are about what no list has,
    that is what is left to tell them by. Most of them nobody knows; who means the same says some
    other words alike, too."""
    found = []
    for _ in range(rng.choice((0, 1, 2, 3, 4))):
        language = rng.choice(("en", "en", "zh"))
        is_known = rng.random() < 0.4
        found.append(rng.choice(meaningless(language)) if is_known else _nonsense(rng, language))
    return found


def _said(rng: random.Random, chosen: tuple[int, ...], language: str, names: list[str]) -> str:
    """Some of it may be left unsaid, where enough remains."""
    concepts = lexicon.concepts()
    meant = list(chosen)
    if len(meant) > 2 and rng.random() < 0.3:
        meant.pop(rng.randrange(len(meant)))
    rng.shuffle(meant)
    most = rng.choice((2, 4, 4, 8))
    parts: list[str] = []
    for number in meant:
        sides = concepts[number]
        parts += _unmeant(rng, language, most)
        parts.append(rng.choice(sides[0] if language == "en" else sides[-1]))
    for name in names:
        parts.insert(rng.randrange(len(parts) + 1), name)
    parts += _unmeant(rng, language, most)
    return _join(language, parts) + rng.choice(("?", ".", ""))


def _unmeant(rng: random.Random, language: str, most: int) -> list[str]:
    """What one text of a pair says and the other need not: some of it nobody knows."""
    words = meaningless(language)
    return [
        rng.choice(words) if rng.random() < 0.9 else _nonsense(rng, language)
        for _ in range(rng.randrange(most))
    ]


@functools.cache
def meaningless(language: str) -> list[str]:
    """What is no concept: words of grammar, and those that praise or blame whatever it is."""
    side = 0 if language == "en" else -1
    meant = {
        word
        for concept in lexicon.concepts()
        for phrase in concept[side]
        for word in phrase.split()
    }
    words = [*lexicon.neutral(language), *lexicon.neutral(language), *lexicon.weights(language)]
    return [word for word in [*words, *own_words(language)] if word not in meant]
