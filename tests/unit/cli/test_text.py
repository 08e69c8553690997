"""Text for a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.cli.text import age, count, narrowed, one_line, size, table, visible
from llmos.sdk.draw.columns import width_of


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_nothing_that_acts_on_a_terminal_survives(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode()  # can be written at all
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\tand\nlines", "plain\tand\nlines"),
        ("你好 🙂 é", "你好 🙂 é"),
        ("[bold]not markup[/]", "[bold]not markup[/]"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcb", "abc\\u202edcb"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_cell_is_one_line() -> None:
    assert one_line("a\nb\tc\x1b") == "a\\nb\\tc\\x1b"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (3 * 10**12, "3.0 TB"),
        (10**19, "10000 PB"),
    ],
)
def test_sizes(number: int | None, text: str) -> None:
    assert size(number) == text


def test_counts_and_ages() -> None:
    assert [count(n) for n in (7, 260_000, 1_500_000_000)] == ["7", "260 k", "1.5 G"]
    second = 10**9
    ages = [age(0, n * second) for n in (0, 59, 60, 3_599, 3_600, 86_400, 900_000)]
    assert ages == ["0 s", "59 s", "1 min", "59 min", "1 h", "1 d", "10 d"]
    assert age(5 * second, 0) == "0 s"  # a clock that went back
    assert age(None) == "-"


def test_columns_line_up_also_in_chinese() -> None:
    text = table(("NAME", "SIZE"), [("模型", "1"), ("a\nb", "22")])
    assert text.splitlines() == ["NAME  SIZE", "模型  1", "a\\nb  22"]


def test_a_table_is_narrowed_by_its_elastic_columns_alone() -> None:
    headers = ("ID", "WHAT", "WHY")
    rows = [("1", "模型模型模型", "because\nit is"), ("22", "x", "")]

    def shown(width: int) -> list[str]:
        return table(headers, narrowed(headers, rows, width, (2, 1))).splitlines()

    assert shown(80) == table(headers, rows).splitlines()
    for width in (22, 18, 13):
        assert max(map(width_of, shown(width))) <= width
    assert shown(22)[1] == "1   模型模型模型  bec…"
    assert shown(13)[1] == "1   模…   be…"
    assert max(map(width_of, shown(3))) == 13  # no column below its header
