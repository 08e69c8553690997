"""The corpus: topics mixed into conversations and plain text, and what is held out of training.

`python -m tools.pilot.corpus 20` prints a sample. The same seed gives the same text anywhere.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.pilot.grammar import Exchange, Language, pick, untidy
from tools.pilot.topics import (
    commands,
    greetings,
    memory,
    numbers,
    stories,
    system,
    unknown,
    words,
)

TOPICS: dict[str, Callable[[random.Random, Language], Exchange]] = {
    "greetings": greetings.sample,
    "system": system.sample,
    "commands": commands.sample,
    "numbers": numbers.sample,
    "words": words.sample,
    "memory": memory.sample,
    "stories": stories.sample,
    "unknown": unknown.sample,
}
# the share of each topic among exchanges: more for what has more to learn
SHARES = {
    "greetings": 0.12, "system": 0.16, "commands": 0.14, "numbers": 0.2, "words": 0.18,
    "memory": 0.08, "stories": 0.03, "unknown": 0.09,
}  # fmt: skip
LANGUAGES: tuple[Language, ...] = ("en", "zh")
HELD_OUT_IN = 16
PLAIN_SHARE = 0.04
SYSTEM_SHARE = 0.2
# how many exchanges a conversation has: mostly one, a few fill the context
LENGTHS = {1: 0.62, 2: 0.16, 3: 0.1, 5: 0.07, 8: 0.03, 24: 0.02}

SYSTEM_EN = (
    "You are a helpful assistant.",
    "You are pilot, a small model that comes with LLMOS.",
    "You are pilot. Answer in short sentences.",
    "Answer the user.",
    "You are a helpful AI assistant. Be concise.",
)
SYSTEM_ZH = ("你是一个有用的助手。", "你是 pilot，LLMOS 自带的小模型。", "请简短回答。")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


Document = tuple[Message, ...] | str


def is_held_out(key: str) -> bool:
    """Whether what `key` asks is kept for evaluation: one in `HELD_OUT_IN`, by its hash."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_IN == 0


def exchange(rng: random.Random, *, held_out: bool = False, topic: str | None = None,
             language: Language | None = None) -> Exchange:  # fmt: skip
    """One exchange of the training side of the split, or of the held-out side."""
    chosen = topic or pick(rng, SHARES)
    while True:
        spoken = rng.choice(LANGUAGES) if language is None else language
        found = TOPICS[chosen](rng, spoken)
        if is_held_out(found.key) == held_out:
            return found


def document(rng: random.Random) -> Document:
    """One training document: a conversation, or now and then plain text."""
    if rng.random() < PLAIN_SHARE:
        return stories.plain(rng, rng.choice(LANGUAGES))
    messages: list[Message] = []
    main: Language = rng.choice(LANGUAGES)
    if rng.random() < SYSTEM_SHARE:
        messages.append(Message("system", rng.choice(SYSTEM_EN if main == "en" else SYSTEM_ZH)))
    for _ in range(pick(rng, LENGTHS)):
        language: Language = main if rng.random() < 0.85 else rng.choice(LANGUAGES)
        for question, answer in exchange(rng, language=language).turns:
            messages.append(Message("user", untidy(rng, question, language)))
            messages.append(Message("assistant", answer))
    return tuple(messages)


def documents(seed: str) -> Iterator[Document]:
    """Training documents without end; the same for the same `seed`."""
    rng = random.Random(seed)
    while True:
        yield document(rng)


def text(found: Document) -> str:
    """A document's bare text, for training the tokenizer and for reading."""
    if isinstance(found, str):
        return found
    return "\n".join(message.content for message in found)


def digest(seed: str, num_documents: int) -> str:
    """SHA-256 of the first documents of `seed`: the generator's fingerprint."""
    hashed = hashlib.sha256()
    stream = documents(seed)
    for _ in range(num_documents):
        found = next(stream)
        roles = "plain" if isinstance(found, str) else ",".join(m.role for m in found)
        hashed.update(f"{roles}\n{text(found)}\n\0".encode())
    return hashed.hexdigest()


def main() -> None:
    """Print a sample."""
    stream = documents("show")
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
        found = next(stream)
        print("---")
        print(found if isinstance(found, str) else
              "\n".join(f"{m.role}: {m.content}" for m in found))  # fmt: skip


if __name__ == "__main__":
    main()
