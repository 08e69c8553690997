"""Texts as vectors: how they are asked for, and what of an answer is one."""
# ruff: noqa: N803, N806 - arrays name their axes: Number, Hidden

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmos.abi.inference import ItemsPrompt, Options, Sampling
from llmos.abi.program import Answer, Generate
from llmos.abi.registry import ModelVersion
from llmos.errors import AnswerRejected, InvalidRequest, LLMOSError, from_info

EMBED = "embeddings"
AT_ONCE = 16
"""Texts in a call."""

ITEM_BYTES = 4
"""Of a number, float32."""


class Vectors:
    """A row is a text, its result its vector in base64: float32, little end first."""

    needs = ["text"]  # noqa: RUF012 - of a Protocol with properties
    pack = AT_ONCE

    def __init__(self, version: ModelVersion, params: Mapping[str, Any], prefix: str = "") -> None:
        """`prefix` stands before every text. Raises InvalidRequest for a model that makes none."""
        if EMBED not in version.kinds:
            able = ", ".join(version.kinds)
            text = f"{version.ref} is for {able}; a corpus is searched by embeddings"
            raise InvalidRequest(text, param="model")
        self._ref = version.ref
        self._params = dict(params)
        self._prefix = prefix

    def piece(self, values: Mapping[str, Any]) -> str:
        return f"{self._prefix}{values['text']}"

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        prompt = ItemsPrompt(EMBED, list(pieces), self._params)
        return Generate(self._ref, prompt, Sampling(), options, EMBED)

    def loosen(self) -> None:
        """It sends none."""

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """In the order of the texts."""
        found: list[LLMOSError | str] = [AnswerRejected("the model gave no vector")] * num_rows
        for output in answer.outputs:
            if output.error is not None:
                found[output.index] = from_info(output.error)
                continue
            try:
                check_vector(output.data)
                found[output.index] = b64encode(output.data).decode()
            except AnswerRejected as error:
                found[output.index] = error
        return found


def check_vector(data: bytes) -> Any:
    """As an array over the same bytes. Raises AnswerRejected for what is no vector, and for one
    whose numbers are not finite: it is near nothing, and would be ranked all the same."""
    if not data:
        raise AnswerRejected("the model gave no vector")
    if len(data) % ITEM_BYTES:
        raise AnswerRejected(f"the model gave {len(data)} bytes, which are no vector of float32")
    vector_H = np.frombuffer(data, "<f4")
    if not np.isfinite(vector_H).all():
        raise AnswerRejected("the model gave a vector whose numbers are not finite")
    return vector_H


def of_length_1(rows_NH: Any) -> Any:
    """In float64, in which the squares of any float32 are finite; zeros stay zeros."""
    wide_NH = rows_NH.astype(np.float64)
    lengths_N1 = np.linalg.norm(wide_NH, axis=1, keepdims=True)
    return wide_NH / np.where(lengths_N1 > 0, lengths_N1, 1.0)
