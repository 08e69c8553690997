"""Lists of words, written by hand, that the training texts are made of."""

from __future__ import annotations

import functools

from tools.small import paths


def _lines(name: str) -> list[str]:
    text = (paths.WORDS / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("# ")]


@functools.cache
def weights(language: str) -> dict[str, float]:
    """How good a word is, from -2 to 2. Where a word is listed twice, the stronger one counts."""
    found: dict[str, float] = {}
    for line in _lines(f"sentiment_{language}.txt"):
        weight, _, words = line.partition(": ")
        for word in words.split():
            if abs(float(weight)) > abs(found.get(word, 0.0)):
                found[word] = float(weight)
    return found


@functools.cache
def neutral(language: str) -> list[str]:
    """Words that say nothing, without those that do."""
    said = weights(language)
    words = dict.fromkeys(w for line in _lines(f"neutral_{language}.txt") for w in line.split())
    return [word for word in words if word not in said]


@functools.cache
def pieces() -> list[str]:
    """Parts of English words that are on no list."""
    words = (w for line in _lines("pieces_en.txt") for w in line.split())
    return list(dict.fromkeys(words))


@functools.cache
def concepts() -> list[list[list[str]]]:
    """What is meant: ways to say it in English, and in Chinese."""
    return [
        [[word.strip() for word in side.split(",")] for side in line.split("|")]
        for line in _lines("concepts.txt")
    ]


@functools.cache
def han() -> list[str]:
    """The 3,755 characters of level 1 of GB 2312, which are those that are used most."""
    made = []
    for row in range(0xB0, 0xD8):
        for cell in range(0xA1, 0xFF):
            try:
                made.append(bytes((row, cell)).decode("gb2312"))
            except UnicodeDecodeError:
                continue
    return made
