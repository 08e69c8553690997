"""A model as judge: which of two answers is better, by a rubric, asked in both orders.

The verdict is JSON of a schema. A judge that prefers a place, not an answer, contradicts itself
when the answers change places, and its pair is a tie (Zheng et al., 2023, MT-Bench).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmos.abi.evals import Judge
from llmos.abi.inference import ChatPrompt, Grammar, Options, Sampling, TextPrompt
from llmos.abi.program import Answer, Generate
from llmos.abi.registry import ModelVersion
from llmos.errors import AnswerRejected

RUBRIC = "Which answer is more correct, more helpful and clearer?"
PROMPT = """You compare two answers to a question. {rubric}

Question:
{question}

Answer A:
{a}

Answer B:
{b}

Do not let the order of the answers, or their length, influence you. Answer with JSON only: \
{{"reason": "...", "verdict": "A"}}, where the verdict is "A", "B" or "tie"."""

SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 400},
        "verdict": {"enum": ["A", "B", "tie"]},
    },
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}


class Verdict(msgspec.Struct, frozen=True):
    """What a judge says."""

    verdict: str
    reason: str = ""


class Judging:
    """A row is a question with two answers in one order. Its result: `A`, `B` or `tie`."""

    needs = ["question", "a", "b"]  # noqa: RUF012 - of a Protocol with properties
    pack = 1

    def __init__(self, judge: Judge, version: ModelVersion) -> None:
        self._judge = judge
        self._version = version
        grammar = Grammar("json_schema", msgspec.json.encode(SCHEMA).decode())
        self._sampling = Sampling(temperature=0.0, max_tokens=judge.max_tokens, grammar=grammar)

    def piece(self, values: Mapping[str, Any]) -> str:
        texts = {name: str(values[name]) for name in self.needs}
        return PROMPT.format(rubric=self._judge.rubric or RUBRIC, **texts)

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        ref, (text,) = self._version.ref, pieces
        if self._version.has_chat_template:
            messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
            return Generate(ref, ChatPrompt(messages), self._sampling, options)
        return Generate(ref, TextPrompt(text + "\n"), self._sampling, options, "text")

    def loosen(self) -> None:
        """Ask in words alone."""
        self._sampling = msgspec.structs.replace(self._sampling, grammar=None)

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        try:
            found = msgspec.json.decode(answer.text.strip().encode(), type=Verdict)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            return [AnswerRejected(f"the verdict is no JSON of its schema: {error}")]
        if found.verdict not in ("A", "B", "tie"):
            return [AnswerRejected(f"no verdict: {found.verdict[:40]!r}")]
        return [{"verdict": found.verdict, "reason": found.reason}]


def verdict_on(said: str, is_first: bool) -> str:
    """Of the model whose answer was A (`is_first`) or B."""
    if said == "tie":
        return "tie"
    return "win" if (said == "A") is is_first else "loss"
