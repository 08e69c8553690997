"""A corpus: documents in a file beside the queries. Names are in memory; texts are read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmos.abi.evals import DataFormat, EvalKind, EvalSpec, format_of
from llmos.errors import InvalidRequest
from llmos.programs.evaluate.examples import Example
from llmos.programs.evaluate.reading import first_fault, read_values
from llmos.programs.task.source import Row

MAX_DOCUMENTS = 1_000_000
MAX_NAME_CHARS = 512
MAX_NAMES_BYTES = 256 << 20
"""What is in memory of a corpus, in all."""

_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("id", ("id", "_id")),
    ("document", ("document", "text")),
)


class Corpus:
    """Columns `id` (or `_id`) and `text`, or what the spec maps `id` and `document` to."""

    def __init__(self, spec: EvalSpec, path: Path) -> None:
        """All are looked at. Raises InvalidRequest for a document without either, a name that two
        have or that is too long, and for too many."""
        self._spec = spec
        self._path = path
        self._form = spec.corpus_format or format_of(path.name, EvalKind.RETRIEVE)
        self._places: dict[str, int] = {}
        size_bytes = 0
        for place, (name, _) in enumerate(self._read()):
            size_bytes += len(name.encode())
            _check(name, place, size_bytes)
            if self._places.setdefault(name, place) != place:
                raise InvalidRequest(f"corpus: two documents are {name[:64]!r}", param="corpus")
        if not self._places:
            raise InvalidRequest("the corpus has no documents", param="corpus")
        self.names: Sequence[str] = list(self._places)

    def __len__(self) -> int:
        return len(self.names)

    def rows(self) -> Iterator[Row]:
        """The documents by place, from the file."""
        for place, (_, text) in enumerate(self._read()):
            yield Row(place, {"text": text})

    def relevant(self, example: Example) -> dict[int, float]:
        """A query's gains, by place. Raises InvalidRequest for a document that is not here."""
        strange = next((name for name in example.right if name not in self._places), None)
        if strange is not None:
            text = f"example {example.number + 1}: the corpus has no document {strange[:64]!r}"
            raise InvalidRequest(text, param="columns.relevant")
        return {self._places[name]: gain for name, gain in example.right.items()}

    def _read(self) -> Iterator[tuple[str, str]]:
        values_of = read_values(self._path, self._form or DataFormat.JSONL, 0)
        for number, values in enumerate(values_of):
            name, text = (_value(self._spec, values, *which, number) for which in _COLUMNS)
            yield name, text


def _check(name: str, place: int, size_bytes: int) -> None:
    if place >= MAX_DOCUMENTS:
        text = f"the corpus has over {MAX_DOCUMENTS} documents"
    elif len(name) > MAX_NAME_CHARS:
        text = f"corpus: document {place + 1}: its name has over {MAX_NAME_CHARS} characters"
    elif size_bytes > MAX_NAMES_BYTES:
        text = f"the corpus has over {MAX_NAMES_BYTES} bytes of names alone"
    else:
        return
    raise InvalidRequest(text, param="corpus")


def _value(
    spec: EvalSpec, values: Mapping[str, Any], name: str, columns: Sequence[str], number: int
) -> str:
    column = spec.columns.get(name) or next((c for c in columns if c in values), name)
    found = values.get(column)
    if found is None or isinstance(found, dict | list) or not str(found).strip():
        fault = first_fault(dict(values), name, column, number)
        raise InvalidRequest(f"corpus: {fault.message}", param=f"columns.{name}")
    return str(found)
