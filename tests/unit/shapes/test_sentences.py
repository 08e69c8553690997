"""Parts of a text that is spoken."""

from __future__ import annotations

import io
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.shapes.sentences import split_sentences
from llmos.shapes.wav import to_wav, wav_header


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A cat.", ["A cat."]),
        ("One two. Three four! Five", ["One two.", "Three four!", "Five"]),
        ("One. Two. Three four five", ["One. Two.", "Three four five"]),
        ("one, two three four", ["one,", "two three four"]),
        ("3.14159 is pi is pi", ["3.14159 is pi", "is pi"]),
        ("你好。今天天气很好，我们去公园玩吧！", ["你好。", "今天天气很好，我们去公园玩吧！"]),
        ("x" * 30, ["x" * 15, "x" * 15]),
        ("  \n ", []),
    ],
)
def test_parts_end_where_people_pause(text: str, parts: list[str]) -> None:
    assert split_sentences(text, 15) == parts


@given(st.text(), st.integers(1, 40))
def test_nothing_is_lost_and_no_part_is_too_long(text: str, most: int) -> None:
    parts = split_sentences(text, most)
    assert all(0 < len(part) <= most for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_wav_file_is_one_for_others() -> None:
    samples = b"\x01\x00\xff\x7f" * 50
    with wave.open(io.BytesIO(to_wav(samples, 16_000))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.getnframes() == 100
        assert file.readframes(1000) == samples
    assert len(wav_header(8000)) == len(wav_header(8000, 10)) == 44
    with wave.open(io.BytesIO(wav_header(8000) + samples)) as file:  # its length is not known yet
        assert file.readframes(1000) == samples
