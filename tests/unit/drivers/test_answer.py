"""An answer grows token by token, and ends once."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.abi.events import Event, Finished, FinishReason, Tokens
from llmos.abi.inference import Usage
from llmos.drivers.text.answer import Answer
from llmos.drivers.text.detokenize import ByteDecoding, WindowState
from llmos.drivers.text.stop import StopStrings
from llmos.errors import InvalidRequest
from tests.unit.drivers.tiny import make_item

PIECES = {0: b"", 1: b" the", 2: b" end", 3: "你".encode()[:2], 4: "你".encode()[2:], 5: b"  "}
DECODING = ByteDecoding(lambda token_id: PIECES[token_id], 1, lambda token_id: b"<%d>" % token_id)


def make(max_new: int = 9, prompt: tuple[int, ...] = (0,), **sampling: Any) -> Answer:
    item = make_item("a", prompt, **sampling)
    stops = StopStrings(item.sampling.stop)
    detokenizer = DECODING.start(prompt)
    return Answer(item, len(prompt), max_new, frozenset({0}), stops, detokenizer)


def grow(answer: Answer, *token_ids: int) -> tuple[str, Event]:
    events = [event for token_id in token_ids for event in answer.accept(token_id, True)]
    assert [e.token_ids for e in events if isinstance(e, Tokens)] == [[i] for i in token_ids]
    return "".join(e.text for e in events if isinstance(e, Tokens)), events[-1]


def test_whole_characters_and_no_first_space() -> None:
    assert grow(make(), 1, 3, 4, 2)[0] == "the你 end"
    assert grow(make(prompt=(0, 1)), 1)[0] == " the"  # the space was the prompt's
    assert grow(make(), 5, 1)[0] == "  the"  # of three


@pytest.mark.parametrize(
    ("fields", "token_ids", "text", "reason", "stop"),
    [
        ({}, (1, 0), "the", FinishReason.STOP, None),
        ({"stop_token_ids": [2]}, (1, 2), "the", FinishReason.STOP, 2),
        ({"stop": ["e e"]}, (1, 2), "th", FinishReason.STOP, "e e"),
        ({"max_new": 2}, (1, 1), "the the", FinishReason.LENGTH, None),
        ({"max_new": 1, "stop": ["the end"]}, (1,), "the", FinishReason.LENGTH, None),
        ({"stop": ["the end"]}, (1, 0), "the", FinishReason.STOP, None),
    ],
)
def test_it_ends(
    fields: dict[str, Any],
    token_ids: tuple[int, ...],
    text: str,
    reason: FinishReason,
    stop: str | int | None,
) -> None:
    said, last = grow(make(**fields), *token_ids)
    assert said == text
    usage = Usage(1, len(token_ids))
    assert last == Finished("a", reason, usage, stop, deterministic=True)


def test_what_was_said_before_is_taken_up() -> None:
    answer = make(stop=["the end"])
    assert answer.replay([1, 1], False) is None
    assert grow(answer, 2) == (
        "",  # what was withheld became the stop string
        Finished("a", FinishReason.STOP, Usage(1, 3), "the end", True),
    )
    ended = make().replay([1, 0], False)
    assert isinstance(ended, Finished)
    with pytest.raises(InvalidRequest, match="ended after 2 of 3"):
        make().replay([1, 0, 1], False)


def test_a_decoding_goes_on_from_a_state() -> None:
    for split in range(4):
        first, ids = DECODING.start([0]), [1, 3, 4, 2]
        text = first.push(ids[:split])
        text += DECODING.restart(first.state()).push(ids[split:])
        assert text == "the你 end"
    with pytest.raises(ValueError, match="another"):
        DECODING.restart(WindowState([], 0))


def test_special_tokens_are_text_where_they_are_shown() -> None:
    assert DECODING.start((0,)).push((1, 0, 2)) == "the end"
    begun = DECODING.start((0,), [0])
    assert begun.push((1, 0, 2)) == "the<0> end"
    assert DECODING.restart(begun.state(), [0]).push((0,)) == "<0>"
