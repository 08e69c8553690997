"""Texts that trained models are scored on: token sequences, and which tokens of them count."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.harness import ROOT
from tools.pilot import corpus, paths
from tools.pilot.tokenizer import IGNORED, encode

WINDOW_TOKENS = 512
"""The context of stories260k."""

SEED = "quality"


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens read from the first on. Those at `scored` are predicted from what is before them."""

    tokens: list[int]
    scored: list[int]


@dataclass(frozen=True, slots=True)
class Text:
    """Some sequences. `nll`: what others found of the first one in float32, nats a token."""

    name: str
    sequences: list[Sequence]
    nll: float | None = None


def whole(tokens: list[int]) -> Sequence:
    """Every token counts but the first one."""
    return Sequence(tokens, list(range(1, len(tokens))))


def data() -> Path:
    """The folder of real data; `LLMOS_TEST_DATA` names it."""
    return Path(os.environ.get("LLMOS_TEST_DATA") or ROOT.parent / "shared" / "data")


def of_stories(folder: Path, num_windows: int) -> Iterator[Text]:
    """The golden story, and text that the model was not trained for, in whole windows."""
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    story = [1, *tokenizer.encode(golden["text"], add_special_tokens=False).ids]
    yield Text("golden story", [whole(story)], golden["ppl_story"]["nll"])
    # what golden.json says of wikitext is of another part of it than the one that is here
    known = {"shakespeare": golden["ppl_shakespeare"]["nll"]}
    for name, file in (("wikitext", "wikitext2_valid"), ("shakespeare", "tinyshakespeare")):
        read = (data() / "text" / f"{file}.txt").read_text(encoding="utf-8")
        yield Text(name, windows(tokenizer, read, num_windows), known.get(name))


def windows(tokenizer: Tokenizer, text: str, count: int) -> list[Sequence]:
    """The first `count` windows, each after the begin token."""
    size = WINDOW_TOKENS - 1
    enough = text[: count * WINDOW_TOKENS * 8]
    ids = tokenizer.encode(enough, add_special_tokens=False).ids
    return [whole([1, *ids[at : at + size]]) for at in range(0, count * size, size)]


def of_pilot(num_conversations: int) -> Iterator[Text]:
    """Exchanges held out of its training; what counts are the assistant's words."""
    tokenizer = Tokenizer.from_file(str(paths.BUNDLE / "tokenizer.json"))
    rng = random.Random(SEED)
    sequences = []
    for _ in range(num_conversations):
        exchange = corpus.exchange(rng, held_out=True)
        messages = [
            corpus.Message(role, content)
            for turn in exchange.turns
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
        ids, labels = encode(tokenizer, tuple(messages))
        scored = [at for at, label in enumerate(labels) if label != IGNORED and at]
        sequences.append(Sequence(ids, scored))
    yield Text("held out", sequences)
