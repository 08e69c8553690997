"""Template expansion and the small untidiness of typed text. Knows no topic."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Language = Literal["en", "zh"]
T = TypeVar("T")

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A short conversation about one thing.

    `turns` are (user, assistant) pairs. `key` names what is asked; keys are what the held-out
    split is made on. `expected` are strings of which every one is in a right last answer.
    """

    topic: str
    language: Language
    key: str
    turns: tuple[tuple[str, str], ...]
    expected: tuple[str, ...]


def expand(rng: random.Random, template: str, **values: object) -> str:
    """Choose in every `[a|b|c]` of `template`, innermost first, then fill in `{name}`s."""
    text = template
    while found := _INNERMOST.search(text):
        chosen = rng.choice(found[1].split("|"))
        text = text[: found.start()] + chosen + text[found.end() :]
    return text.format(**values)


def say(
    rng: random.Random, questions: Sequence[str], answers: Sequence[str], **values: object
) -> tuple[str, str]:
    """One turn: a question and an answer, each expanded from one of its templates."""
    return expand(rng, rng.choice(questions), **values), expand(rng, rng.choice(answers), **values)


def pick(rng: random.Random, weights: dict[T, float]) -> T:
    """One key of `weights`, drawn in proportion to its value."""
    return rng.choices(list(weights), list(weights.values()))[0]


def normal(text: str) -> str:
    """`text` as the held-out split sees it: lower case, letters and digits only."""
    return "".join(c for c in text.lower() if c.isalnum())


_POLITE_EN = ("Please, {}", "Hey, {}", "Um, {}", "{} Thanks.", "{} Please.", "Pilot, {}", "So, {}")
_POLITE_ZH = ("请问，{}", "请问{}", "你好，{}", "{}谢谢", "那{}", "我想问，{}", "嗯，{}")


def untidy(rng: random.Random, text: str, language: Language) -> str:
    """`text` as a person might type it: case, punctuation, courtesy, now and then a slip."""
    if rng.random() < 0.15:
        frame = rng.choice(_POLITE_EN if language == "en" else _POLITE_ZH)
        lowered = text[:1].lower() + text[1:] if language == "en" and text[:2] != "I " else text
        text = frame.format(lowered if not frame.startswith("{}") else text)
    if rng.random() < 0.3:
        text = text.rstrip("?.!？。！")
    if language == "zh" and rng.random() < 0.1:
        text = text.translate(str.maketrans("？，。！", "?,.!"))
    if language == "en" and rng.random() < 0.2:
        text = text.lower()
    if language == "en" and rng.random() < 0.03:
        text = _slip(rng, text)
    return text


def _slip(rng: random.Random, text: str) -> str:
    """`text` with two neighbouring letters exchanged, or one left out."""
    places = [i for i in range(1, len(text) - 1) if text[i : i + 2].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    return text[:i] + (text[i + 1] + text[i] if rng.random() < 0.5 else text[i]) + text[i + 2 :]
