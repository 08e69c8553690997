"""Multiple choice: by the letter that a model answers, or by which answer it finds likeliest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmos.abi.evals import EvalSpec
from llmos.abi.inference import ChatPrompt, Options, Sampling, TextPrompt
from llmos.abi.program import Answer, Generate
from llmos.abi.registry import ModelVersion
from llmos.errors import AnswerRejected
from llmos.programs.evaluate.examples import LETTERS
from llmos.programs.evaluate.likely import SCORING
from llmos.programs.task.template import Template

PROMPT = (
    "{{ question }}\n{% for choice in choices %}\n{{ letters[loop.index0] }}. {{ choice }}"
    "{% endfor %}\n\nAnswer with the letter only."
)
CONTEXT = "{{ question }}\nAnswer:"
LETTER_TOKENS = 8

_LETTER = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])")


class ByLetter:
    """Asked once; the first lone letter of the answer that is a choice's counts."""

    needs = ["question", "choices"]  # noqa: RUF012 - of a Protocol with properties
    pack = 1

    def __init__(self, spec: EvalSpec, version: ModelVersion) -> None:
        self._spec = spec
        self._version = version
        self._template = Template(spec.prompt or PROMPT)

    def piece(self, values: Mapping[str, Any]) -> str:
        return self._template.render({"letters": LETTERS, **values})

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        limit = self._spec.max_tokens or LETTER_TOKENS
        sampling = Sampling(temperature=0.0, max_tokens=limit)
        ref, text = self._version.ref, str(pieces[0])
        if not self._version.has_chat_template:
            return Generate(ref, TextPrompt(text + "\nAnswer:"), sampling, options, "text")
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
        if self._spec.system:
            messages.insert(0, {"role": "system", "content": self._spec.system})
        return Generate(ref, ChatPrompt(messages), sampling, options)

    def loosen(self) -> None:
        """It sends none."""

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """The place of the choice; one that is none is for the example to refuse."""
        found = _LETTER.search(answer.text.strip())
        if found is None:
            return [AnswerRejected(f"the answer has no letter: {answer.text.strip()[:80]!r}")]
        return [LETTERS.index(found[1])]


class ByLogprobs:
    """Each choice after the question is scored by a call of its own: rows are choices."""

    needs = ["question", "choice"]  # noqa: RUF012 - of a Protocol with properties
    pack = 1

    def __init__(self, spec: EvalSpec, version: ModelVersion) -> None:
        self._ref = version.ref
        self._template = Template(spec.prompt or CONTEXT)

    def piece(self, values: Mapping[str, Any]) -> tuple[str, str]:
        return self._template.render(dict(values)), " " + str(values["choice"]).strip()

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        context, choice = pieces[0]
        return Generate(self._ref, TextPrompt(context + choice), SCORING, options, "text")

    def loosen(self) -> None:
        """It sends none."""

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """All of the prompt's tokens, last first: who knows the choice takes those that are it."""
        if answer.prompt_logprobs is None:
            return [AnswerRejected("the model's driver does not tell how likely a prompt is")]
        told = [(len(one.drawn.piece), one.drawn.logprob) for one in answer.prompt_logprobs]
        return [[[size, round(logprob, 6)] for size, logprob in reversed(told)]]


def choice_logprob(told: Sequence[Sequence[float]], choice: str) -> tuple[float, int]:
    """Of the choice's own tokens, by how many bytes they have: the sum, and the bytes."""
    wanted = len(choice.strip().encode())
    total, size = 0.0, 0
    for num_bytes, logprob in told:
        if size >= wanted:
            break
        total += logprob
        size += int(num_bytes)
    return total, wanted
