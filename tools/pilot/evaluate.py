"""Evaluation of a bundled folder: prompts of the generator, held out and seen, and by hand.

An answer is right when it holds what must be in it and ends its turn by itself. Greedy decoding.
"""
# ruff: noqa: N806 - tensor names end in their shape: B batch, T time

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tools.pilot import corpus, probes
from tools.pilot.corpus import Message
from tools.pilot.grammar import Exchange
from tools.pilot.tokenizer import END_ID, END_OF_TEXT_ID, START_ID, encode

MAX_NEW_TOKENS = 192
NUM_PER_CELL = 40  # prompts of each topic and language
MAX_DRAWS = 4000  # small topics have fewer held-out prompts than that


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and whether it ended its turn."""

    text: str
    stopped: bool


class Model:
    """A bundled folder, loaded to answer: weights as stored, arithmetic in `dtype`."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype)
        self.text = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        ids, _ = encode(self.text, tuple(messages))
        role = self.text.encode("assistant\n", add_special_tokens=False).ids
        return [*ids, START_ID, *role]

    def answer(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        """Greedy answers; prompts of equal length go together, so that none is padded."""
        prompts = [self._prompt(messages) for messages in conversations]
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, prompt in enumerate(prompts):
            by_length[len(prompt)].append(i)
        answers: dict[int, Answer] = {}
        for indices in by_length.values():
            ids_BT = torch.tensor([prompts[i] for i in indices])
            with torch.inference_mode():
                out_BT = self.model.generate(  # type: ignore[misc]
                    ids_BT,
                    attention_mask=torch.ones_like(ids_BT),
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                )
            for i, row in zip(indices, out_BT[:, ids_BT.shape[1] :].tolist(), strict=True):
                answers[i] = self._cut(row)
        return [answers[i] for i in range(len(prompts))]

    def _cut(self, ids: list[int]) -> Answer:
        ends = [i for i, token in enumerate(ids) if token in (END_ID, END_OF_TEXT_ID)]
        return Answer(self.text.decode(ids[: ends[0]] if ends else ids), bool(ends))


def draw(topic: str, language: str, *, held_out: bool) -> list[Exchange]:
    """Up to `NUM_PER_CELL` different exchanges of one side of the split."""
    rng = random.Random(f"evaluate:{topic}:{language}:{held_out}")
    found: dict[str, Exchange] = {}
    for _ in range(MAX_DRAWS):
        if len(found) == NUM_PER_CELL:
            break
        drawn = corpus.exchange(
            rng, held_out=held_out, topic=topic, language="zh" if language == "zh" else "en"
        )
        found.setdefault(drawn.key, drawn)
    return list(found.values())


def conversation(exchange: Exchange) -> list[Message]:
    """The messages before the answer that is judged; earlier answers are the reference's."""
    messages = []
    for question, answer in exchange.turns:
        messages += [Message("user", question), Message("assistant", answer)]
    return messages[:-1]


def score_generated(model: Model, *, held_out: bool) -> dict[str, Any]:
    """Right answers per topic and language: `{"numbers en": {"right": 31, "asked": 40}}`."""
    cells: dict[str, Any] = {}
    for topic in corpus.TOPICS:
        for language in ("en", "zh"):
            asked = draw(topic, language, held_out=held_out)
            answers = model.answer([conversation(exchange) for exchange in asked])
            right = sum(
                answer.stopped and all(part in answer.text for part in exchange.expected)
                for exchange, answer in zip(asked, answers, strict=True)
            )
            stopped = sum(answer.stopped for answer in answers)
            cells[f"{topic} {language}"] = {"right": right, "asked": len(asked), "stopped": stopped}
    return cells


def score_probes(model: Model) -> dict[str, Any]:
    """The hand-written prompts: right answers of each language, and what went wrong."""
    result: dict[str, Any] = {}
    for language, asked in (("en", probes.ENGLISH), ("zh", probes.CHINESE)):
        answers = model.answer([[Message("user", question)] for question, _ in asked])
        wrong = [
            {"prompt": question, "answer": answer.text}
            for (question, parts), answer in zip(asked, answers, strict=True)
            if not (answer.stopped and any(part in answer.text for part in parts))
        ]
        result[language] = {
            "right": len(asked) - len(wrong), "asked": len(asked), "wrong": wrong
        }  # fmt: skip
    return result


def evaluate(folder: Path) -> dict[str, Any]:
    """All measures of the folder."""
    model = Model(folder)
    return {
        "held_out": score_generated(model, held_out=True),
        "seen": score_generated(model, held_out=False),
        "hand_written": score_probes(model),
    }
