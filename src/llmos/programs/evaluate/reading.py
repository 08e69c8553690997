"""The data's file as rows: what `task` reads, and CoNLL, SQuAD and plain text besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.evals import DataFormat
from llmos.abi.tasks import InputFormat
from llmos.errors import InvalidRequest, LLMOSError
from llmos.programs.task.conll import numbered_lines, read_conll
from llmos.programs.task.source import Row, read_file

MAX_FILE_BYTES = 1 << 30
MAX_EXAMPLES = 1_000_000
Values = dict[str, Any]


def read_values(path: Path, form: DataFormat, window_bytes: int) -> Iterator[Values]:
    """All examples, as columns. Raises InvalidRequest for a file that is not what it should be, and
    for the first example that cannot be read: a score over the others would be another's."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidRequest(f"the data has over {MAX_FILE_BYTES} bytes", param="data")
    if form is DataFormat.CONLL:
        yield from _conll(path)
    elif form is DataFormat.SQUAD:
        yield from _squad(path)
    elif form is DataFormat.TEXT:
        yield from _text(path, window_bytes)
    else:
        for row in read_file(path, InputFormat(form.value)):
            yield _checked(row)


def _checked(row: Row) -> Values:
    if row.error is not None:
        raise InvalidRequest(f"example {row.number + 1}: {row.error.message}", param="data")
    if row.number >= MAX_EXAMPLES:
        raise InvalidRequest(f"there are over {MAX_EXAMPLES} examples", param="data")
    return dict(row.values)


def _conll(path: Path) -> Iterator[Values]:
    for tokens, tags in read_conll(path):
        yield {"tokens": tokens, "tags": tags}


def _squad(path: Path) -> Iterator[Values]:
    """SQuAD 1.1 and 2.0; of what has no answer, `answers` is empty."""
    try:
        articles = msgspec.json.decode(path.read_bytes())["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = dict.fromkeys(one["text"] for one in asked.get("answers", ()))
                    yield {
                        "id": asked.get("id"),
                        "title": article.get("title", ""),
                        "question": asked["question"],
                        "context": paragraph["context"],
                        "answers": [] if asked.get("is_impossible") else list(answers),
                    }
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the data is not JSON: {error}", param="data") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"the data is no SQuAD: {error!r:.80}", param="data") from None


def _text(path: Path, window_bytes: int) -> Iterator[Values]:
    """Whole lines together, as many as a window holds; a longer line in parts."""
    window, size = "", 0
    for _, line in numbered_lines(path):
        for part in _parts(line, window_bytes):
            part_bytes = len(part.encode())
            if window and size + part_bytes > window_bytes:
                if window.strip():
                    yield {"text": window}
                window, size = "", 0
            window += part
            size += part_bytes
    if window.strip():
        yield {"text": window}


def _parts(line: str, window_bytes: int) -> Iterator[str]:
    """A character has four bytes at most."""
    step = len(line) if len(line.encode()) <= window_bytes else max(1, window_bytes // 4)
    for begin in range(0, len(line), max(1, step)):
        yield line[begin : begin + step]


def first_fault(values: Values, name: str, column: str, number: int) -> LLMOSError:
    """Of an example that lacks what it is to have."""
    there = ", ".join(map(repr, list(values)[:12])) or "nothing"
    what = "is empty" if column in values else f"has no column {column!r}; it has {there}"
    text = f"example {number + 1}: {name!r} {what}" if column in values else f"the data {what}"
    return InvalidRequest(text, param=f"columns.{name}")
