"""Sentences with a tag for every token, as CoNLL's shared tasks hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llmos.errors import InvalidRequest

BEGINS_DOCUMENT = "-DOCSTART-"


_BLANKS = re.compile(" +")
"""An ideographic space is a token of Chinese texts."""


class Sentence(NamedTuple):
    """As many tags as tokens."""

    tokens: list[str]
    tags: list[str]


def read_conll(path: Path, param: str = "data") -> Iterator[Sentence]:
    """A token and its tag in a line, first and last of its fields; a blank line ends a sentence.
    Raises InvalidRequest of `param`, naming the line."""
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in numbered_lines(path, param):
        if line.startswith(BEGINS_DOCUMENT):
            continue
        bare = line.rstrip("\r\n")
        fields = bare.split("\t") if "\t" in bare else _BLANKS.split(bare.strip(" "))
        if not bare.strip():
            if tokens:
                yield Sentence(tokens, tags)
            tokens, tags = [], []
            continue
        if len(fields) < 2:
            text = f"line {number} is no token with a tag: {line.strip()[:60]!r}"
            raise InvalidRequest(text, param=param)
        tokens.append(fields[0])
        tags.append(fields[-1].strip())
    if tokens:
        yield Sentence(tokens, tags)


def numbered_lines(path: Path, param: str = "data") -> Iterator[tuple[int, str]]:
    """From 1, with their ends. Raises InvalidRequest for what is not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from enumerate(file, 1)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the data is not UTF-8: {error.reason}", param=param) from None
