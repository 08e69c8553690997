"""How likely a model finds a text: one call, whose answer has the logarithms of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmos.abi.events import Logprobs
from llmos.abi.inference import Options, Sampling, TextPrompt
from llmos.abi.program import Answer, Generate
from llmos.errors import AnswerRejected, InvalidRequest

SCORING = Sampling(temperature=0.0, max_tokens=1, prompt_logprobs=0)


class Likely:
    """Of a text. A row is one call."""

    needs = ["text"]  # noqa: RUF012 - of a Protocol with properties
    pack = 1

    def __init__(self, ref: str) -> None:
        self._ref = ref

    def piece(self, values: Mapping[str, Any]) -> str:
        if not str(values["text"]).strip():
            raise InvalidRequest("the text is empty", param="columns.text")
        return str(values["text"])

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        return Generate(self._ref, TextPrompt(pieces[0]), SCORING, options, "text")

    def loosen(self) -> None:
        """It sends none."""

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """Sums over all tokens but the first, of which nothing is told."""
        if answer.prompt_logprobs is None:
            return [AnswerRejected("the model's driver does not tell how likely a prompt is")]
        return [total(answer.prompt_logprobs)]


def total(found: Sequence[Logprobs]) -> dict[str, float]:
    """As `metrics.likelihood.Likelihood` has it."""
    pieces = b"".join(one.drawn.piece for one in found)
    return {
        "logprob": sum(one.drawn.logprob for one in found),
        "num_tokens": len(found),
        "num_bytes": len(pieces),
        "num_chars": len(pieces.decode("utf-8", "replace")),
    }
