"""The tests' own parser is not disturbed by what collecting garbage runs."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.syntax import parse

SOURCE = "\n".join(f"x{i} = [{i}, f(a.b, c={i})]" for i in range(500))


@contextmanager
def parsing_collector() -> Iterator[list[str]]:
    """The collector runs often, and each time something parses, further down the stack."""
    heard: list[str] = []

    def parse_deep(depth: int) -> None:
        if depth:
            parse_deep(depth - 1)
        else:
            ast.parse("1")

    def collected(phase: str, info: dict[str, int]) -> None:
        heard.append(phase)
        parse_deep(9)

    threshold = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(20)
    try:
        yield heard
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collected)


def test_a_collection_that_parses_does_not_disturb_a_parse() -> None:
    with parsing_collector() as heard:
        held = [[] for _ in range(100)]
        body = parse(SOURCE).body
    assert heard and held
    assert len(body) == 500
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        parse("x = 1")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_on_again_after_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        parse("x = = 1")
    assert gc.isenabled()
