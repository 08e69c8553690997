"""Retrieval from a corpus: documents and queries as vectors, and of each query what is nearest.

A file of documents beside the queries; both are asked of a model for embeddings, and what came is
the checkpoint. Vectors are compared one with each other, exactly: no index is measured.
"""
# ruff: noqa: N803, N806 - arrays name their axes: Queries, Documents, Hidden

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llmos.abi.evals import DataFormat, EvalKind, EvalSpec, format_of
from llmos.abi.inference import ItemsPrompt, Options, Sampling
from llmos.abi.program import Answer, Generate
from llmos.abi.registry import ModelVersion
from llmos.errors import AnswerRejected, InvalidRequest, LLMOSError, from_info
from llmos.programs.evaluate.examples import Example
from llmos.programs.evaluate.reading import first_fault, read_values

EMBED = "embeddings"
DEPTH = 1000
"""Documents that a query's ranking holds: what MRR and MAP look at, as trec_eval's."""

AT_ONCE = 16
"""Texts in a call."""

QUERIES_AT_ONCE = 64
MAX_DOCUMENTS = 1_000_000


class Document(NamedTuple):
    """Of a corpus; examples know it by its name."""

    name: str
    text: str


def read_corpus(spec: EvalSpec, path: Path) -> list[Document]:
    """Columns `id` (or `_id`) and `text`, or what the spec maps `id` and `document` to. Raises
    InvalidRequest for a document without either, or a name that two have."""
    form = spec.corpus_format or format_of(path.name, EvalKind.RETRIEVE) or DataFormat.JSONL
    made, seen = [], set()
    for number, values in enumerate(read_values(path, form, 0)):
        name, text = (_value(spec, values, *which, number) for which in _COLUMNS)
        if name in seen:
            raise InvalidRequest(f"corpus: two documents are {name[:64]!r}", param="corpus")
        seen.add(name)
        made.append(Document(name, text))
    if not made:
        raise InvalidRequest("the corpus has no documents", param="corpus")
    return made


_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("id", ("id", "_id")),
    ("document", ("document", "text")),
)


def _value(
    spec: EvalSpec, values: Mapping[str, Any], name: str, columns: Sequence[str], number: int
) -> str:
    column = spec.columns.get(name) or next((c for c in columns if c in values), name)
    found = values.get(column)
    if found is None or isinstance(found, dict | list) or not str(found).strip():
        fault = first_fault(dict(values), name, column, number)
        raise InvalidRequest(f"corpus: {fault.message}", param=f"columns.{name}")
    return str(found)


def check_relevant(examples: Sequence[Example], documents: Sequence[Document]) -> None:
    """Raises InvalidRequest for what is relevant and not in the corpus."""
    names = {document.name for document in documents}
    for example in examples:
        if (strange := next((n for n in example.right if n not in names), None)) is not None:
            text = f"example {example.number + 1}: the corpus has no document {strange[:64]!r}"
            raise InvalidRequest(text, param="columns.relevant")


class Vectors:
    """Texts as vectors. A row's result is its vector in base64, float32, little end first."""

    needs = ["text"]  # noqa: RUF012 - of a Protocol with properties
    pack = AT_ONCE

    def __init__(self, version: ModelVersion, params: Mapping[str, Any]) -> None:
        """Raises InvalidRequest for a model that makes none."""
        if EMBED not in version.kinds:
            able = ", ".join(version.kinds)
            text = f"{version.ref} is for {able}; a corpus is searched by embeddings"
            raise InvalidRequest(text, param="model")
        self._ref = version.ref
        self._params = dict(params)

    def piece(self, values: Mapping[str, Any]) -> str:
        return str(values["text"])

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
            elif output.data:
                found[output.index] = b64encode(output.data).decode()
        return found


def nearest(
    queries: Mapping[int, str], documents: Sequence[Document], vectors: Mapping[int, str]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Of each query, by its number, the names of documents with their cosines, the nearest first;
    of equals the one that is first in the corpus. `vectors` are those of all documents, by place.
    Raises InvalidRequest where vectors are of other sizes than others."""
    documents_DH = _rows([vectors[place] for place in range(len(documents))])
    numbers = list(queries)
    for at in range(0, len(numbers), QUERIES_AT_ONCE):
        part = numbers[at : at + QUERIES_AT_ONCE]
        queries_QH = _rows([queries[number] for number in part])
        if queries_QH.shape[1] != documents_DH.shape[1]:
            raise InvalidRequest("vectors of queries and documents are of two sizes", param="model")
        for number, cosines_D in zip(part, queries_QH @ documents_DH.T, strict=True):
            yield number, _best(cosines_D, documents)


def _rows(encoded: Sequence[str]) -> Any:
    """Of length 1."""
    rows = [np.frombuffer(b64decode(one), "<f4") for one in encoded]
    if len({len(row) for row in rows}) != 1:
        raise InvalidRequest("the model gave vectors of several sizes", param="model")
    made_NH = np.stack(rows).astype(np.float32)
    return made_NH / np.maximum(np.linalg.norm(made_NH, axis=1, keepdims=True), 1e-12)


def _best(cosines_D: Any, documents: Sequence[Document]) -> list[dict[str, Any]]:
    order = np.argsort(-cosines_D, kind="stable")[:DEPTH]
    return [
        {"index": documents[place].name, "score": round(float(cosines_D[place]), 6)}
        for place in order.tolist()
    ]
