"""Work that is answered item by item: classes, vectors, scores, texts. Pure."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmos.errors import LLMOSError
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Listed
from llmos.sdk.wire import (
    Call,
    Patience,
    Request,
    WholeBody,
    decode,
    encode,
    error_from_envelope,
)

MOST, MOST_LINES = 200, 20
"""Inputs that are shown, in a notebook and on a terminal."""


class Datum(msgspec.Struct, frozen=True):
    """What came of one input: its output, as the kind shapes it, or `error`.

    `note` says what of the input was left out.
    """

    index: int
    output: Any = None
    note: str = ""
    error: LLMOSError | None = None


class Inferred(msgspec.Struct, frozen=True):
    """The whole answer. `llmos` is how it ran."""

    model: str
    kind: str
    data: list[Datum]
    prompt_tokens: int
    llmos: dict[str, Any]

    def _repr_html_(self) -> str:
        from llmos.sdk.draw.found import cell
        from llmos.sdk.draw.sheet import note, sheet, table

        rows = [(str(one.index), cell(one.output, one.error, one.note)) for one in self.data[:MOST]]
        more = max(0, len(self.data) - MOST)
        facts = f"{self.model} · {self.kind} · {len(self.data)} inputs"
        return sheet(table(("input", "found"), rows, more), note(facts))

    def __repr__(self) -> str:
        from llmos.sdk.draw.columns import one_line
        from llmos.sdk.draw.found import cell
        from llmos.sdk.draw.words import plain

        lines = [
            f"{one.index}  {one_line(plain(cell(one.output, one.error, one.note).text))}"
            for one in self.data[:MOST_LINES]
        ]
        more = len(self.data) - MOST_LINES
        head = one_line(plain(f"{self.model}  {self.kind}  {len(self.data)} inputs"))
        return "\n".join([f"<{head}>", *lines, *([f"… {more} more"] if more > 0 else [])])


class Embeddings(msgspec.Struct, frozen=True):
    """A vector for each input, in their order."""

    model: str
    vectors: list[list[float]]
    prompt_tokens: int
    llmos: dict[str, Any]

    def __repr__(self) -> str:
        size = len(self.vectors[0]) if self.vectors else 0
        return f"<{self.model!r}  {len(self.vectors)} vectors of {size} numbers>"


class Ranked(msgspec.Struct, frozen=True):
    """One document, by its place in what was asked."""

    index: int
    score: float


class Moderation(msgspec.Struct, frozen=True):
    """What a classifier finds in one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int


class _Datum(msgspec.Struct):
    index: int
    output: Any = None
    note: str | None = None
    error: dict[str, Any] | None = None
    embedding: str = ""


class _Answer(msgspec.Struct):
    model: str
    llmos: dict[str, Any]
    data: list[_Datum] = []
    usage: _Usage = _Usage(0)
    kind: str = ""


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Ranking(msgspec.Struct):
    results: list[_Result]


class _Moderations(msgspec.Struct):
    results: list[Moderation]


def infer(
    config: ClientConfig,
    model: str,
    inputs: Sequence[Any],
    *,
    kind: str | None = None,
    params: Mapping[str, Any] | None = None,
    llmos: Mapping[str, Any] | None = None,
) -> Call[Inferred]:
    """`POST /os/v1/infer`: whatever a model is for. One bad input fails alone, as its `error`.

    An image or a recording is `{"image": data}` or `{"audio": data}`, with bytes or base64.
    """
    body = {
        "model": model,
        "inputs": [_packed(one) for one in inputs],
        "kind": kind,
        "params": dict(params) if params else None,
        "llmos": dict(llmos) if llmos else None,
    }
    return _call(config, "/os/v1/infer", body, _inferred)


def embed(
    config: ClientConfig,
    model: str,
    inputs: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    dimensions: int | None = None,
    llmos: Mapping[str, Any] | None = None,
) -> Call[Embeddings]:
    """`POST /v1/embeddings`: a vector for each text. Raises the error of the first bad one."""
    given = inputs if isinstance(inputs, str) else [_plain(one) for one in inputs]
    body = {
        "model": model,
        "input": given,
        "encoding_format": "base64",
        "dimensions": dimensions,
        "llmos": dict(llmos) if llmos else None,
    }
    return _call(config, "/v1/embeddings", body, _embeddings)


def rerank(
    config: ClientConfig,
    model: str,
    query: str,
    documents: Sequence[str],
    *,
    top_n: int | None = None,
    llmos: Mapping[str, Any] | None = None,
) -> Call[Listed[Ranked]]:
    """`POST /v1/rerank`: documents by how well they answer a query, the best first."""
    body = {
        "model": model,
        "query": query,
        "documents": list(documents),
        "top_n": top_n,
        "llmos": dict(llmos) if llmos else None,
    }
    return _call(config, "/v1/rerank", body, _ranking)


def moderate(
    config: ClientConfig, texts: str | Sequence[str], *, model: str | None = None
) -> Call[Listed[Moderation]]:
    """`POST /v1/moderations`: what a registered classifier finds. Raises ModelNotFound."""
    body = {"input": texts if isinstance(texts, str) else list(texts), "model": model}
    return _call(config, "/v1/moderations", body, _moderations)


def _call(config: ClientConfig, path: str, body: dict[str, Any], parse: Any) -> Call[Any]:
    said = {name: value for name, value in body.items() if value is not None}
    request = Request("POST", path, encode(said), Patience.LONG)
    return Call(request, lambda: WholeBody(parse, config.max_answer_bytes))


def _packed(one: Any) -> Any:
    if not isinstance(one, Mapping):
        return one
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for key, value in one.items()
    }


def _plain(one: Any) -> Any:
    return one if isinstance(one, str | int) else list(one)


def _inferred(data: bytes) -> Inferred:
    answer = decode(data, _Answer)
    found = [
        Datum(
            one.index,
            one.output,
            one.note or "",
            None if one.error is None else error_from_envelope({"error": one.error}),
        )
        for one in answer.data
    ]
    return Inferred(answer.model, answer.kind, found, answer.usage.prompt_tokens, answer.llmos)


def _embeddings(data: bytes) -> Embeddings:
    answer = decode(data, _Answer)
    vectors = [array("f", base64.b64decode(one.embedding)).tolist() for one in answer.data]
    return Embeddings(answer.model, vectors, answer.usage.prompt_tokens, answer.llmos)


def _ranking(data: bytes) -> Listed[Ranked]:
    results = decode(data, _Ranking).results
    return Listed(Ranked(result.index, result.relevance_score) for result in results)


def _moderations(data: bytes) -> Listed[Moderation]:
    return Listed(decode(data, _Moderations).results)
