"""Stop strings against the plain definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.text.stop import StopStrings

letters = st.text("ab\n", max_size=12)


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None, list[str]]:
    strings = StopStrings(stops)
    out = []
    for piece in pieces:
        out.append(strings.push(piece))
        if strings.matched is not None:
            break
    return "".join(out) + strings.flush(), strings.matched, out


def first_complete(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Character by character: the text before the first stop string that is complete."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], max(ended, key=len)
    return text, None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), letters)
def test_character_by_character(stops: list[str], text: str) -> None:
    out, matched, _ = run(stops, list(text))
    assert (out, matched) == first_complete(text, stops)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.lists(letters, max_size=6))
def test_pieces_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    out, matched, _ = run(stops, pieces)
    assert (out, matched) == first_complete(whole, stops)


@settings(max_examples=100)
@given(st.lists(st.text("ab", min_size=1, max_size=5), max_size=3), st.lists(letters, max_size=8))
def test_what_is_withheld_is_all_its_state(stops: list[str], pieces: list[str]) -> None:
    strings, out = StopStrings(stops), []
    for piece in pieces:
        strings = StopStrings(stops, strings.withheld)
        out.append(strings.push(piece))
        if strings.matched is not None:
            break
    assert ("".join(out) + strings.flush(), strings.matched, out) == run(stops, pieces)


def test_a_beginning_is_withheld_and_released() -> None:
    strings = StopStrings(["###"])
    assert strings.push("a#") == "a"
    assert strings.push("#") == ""
    assert strings.push("b") == "##b"
    assert strings.push("c##") == "c"
    assert strings.flush() == "##"
    assert strings.matched is None


def test_nothing_leaves_after_a_match() -> None:
    strings = StopStrings(["好"])
    assert strings.push("你好吗") == "你"
    assert strings.matched == "好"
    assert strings.push("more") + strings.flush() == ""


def test_no_stop_strings() -> None:
    strings = StopStrings(["", ""])
    assert strings.push("a") == "a"
    assert strings.flush() == ""
