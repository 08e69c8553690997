"""A chat as the browser's tab keeps it: whole, bounded, and nobody else's."""

from __future__ import annotations

import json
import time

import pytest

from llmos.abi.inference import Usage
from llmos.console.views.talk import Picture, spoken
from llmos.console.views.transcript import (
    MAX_TURNS,
    KeptCall,
    Side,
    Transcript,
    Turn,
    owner_of,
    pack,
    unpack,
)
from llmos.sdk.answer import Answer
from llmos.sdk.results import Chunk, ToolDelta

ME = owner_of("llmos_mine")


def _turn(words: str, text: str = "yes", **more: object) -> Turn:
    return Turn(words, text, "pilot", "9 tokens", "req_1", **more)  # type: ignore[arg-type]


def test_what_was_said_comes_back() -> None:
    calls = [KeptCall("c1", "weather", '{"city": "Köln"}')]
    turns = [_turn("你好 🙂</script>"), _turn("again", calls=calls), Turn("cut off", model="pilot")]
    kept = Transcript(ME, [Side("pilot", turns), Side("echo", [])], compared=True)
    found = unpack(pack(kept, 10_000), ME, 10_000)
    assert found == kept


def test_a_conversation_goes_on_with_what_was_answered() -> None:
    called = _turn("q", "", calls=[KeptCall("c1", "weather", "{}")])
    assert _turn("q").messages() == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "yes"},
    ]
    assert called.messages()[1]["tool_calls"][0]["function"]["name"] == "weather"
    assert Turn("q", problem="refused").messages() == []
    assert _turn("", has_image=True).messages() == []


def test_an_answer_is_kept_as_far_as_it_came() -> None:
    answer = Answer(time.monotonic())
    answer.feed(Chunk("Hel", tool_calls=[ToolDelta(0, "c1", "f", "{}")]), time.monotonic())
    answer.feed(Chunk(usage=Usage(1, 2), llmos={"request_id": "req_7"}), time.monotonic())
    turn = Turn("q")
    turn.keep(answer, "2 tokens", "broken")
    assert (turn.text, turn.request_id, turn.problem) == ("Hel", "req_7", "broken")
    assert turn.calls == [KeptCall("c1", "f", "{}")]


def test_the_oldest_goes_first() -> None:
    turns = [_turn(str(n), "x" * 100) for n in range(50)]
    text = pack(Transcript(ME, [Side("pilot", turns)]), 1000)
    found = unpack(text, ME, 1000)
    assert found is not None
    assert [turn.words for turn in found.sides[0].turns] == [str(n) for n in range(41, 50)]
    many = Transcript(ME, [Side("pilot", [_turn("x", "")] * (MAX_TURNS + 50))])
    found = unpack(pack(many, 100_000), ME, 100_000)
    assert found is not None
    assert len(found.sides[0].turns) == MAX_TURNS
    assert unpack(pack(many, 0), ME, 0) == Transcript(ME, [Side("pilot", [])])


def test_a_browser_that_kept_more_than_it_may_is_cut_as_well() -> None:
    text = pack(Transcript(ME, [Side("pilot", [_turn("a", "x" * 900), _turn("b")])]), 10_000)
    found = unpack(text, ME, 100)
    assert found is not None
    assert [turn.words for turn in found.sides[0].turns] == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "{",
        "[]",
        '{"owner": 1}',
        json.dumps({"owner": ME, "sides": []}),
        json.dumps({"owner": ME, "sides": [{"model": "x"}] * 3}),
        json.dumps({"owner": ME, "sides": [{"model": "x", "turns": [{"words": 3}]}]}),
        pack(Transcript(owner_of("llmos_other"), [Side("pilot", [_turn("secret")])]), 1000),
    ],
)
def test_what_is_none_or_another_s_is_not_read(text: object) -> None:
    assert unpack(text, ME, 1000) is None


def test_an_owner_tells_nothing_of_the_key() -> None:
    assert "mine" not in ME
    assert owner_of("a") != owner_of("b")


def test_an_image_is_a_part_of_the_message() -> None:
    picture = Picture(b"\x89PNG", "image/png", "p.png")
    assert picture.url == "data:image/png;base64,iVBORw=="
    assert spoken("look", picture)["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": picture.url}},
    ]
    assert len(spoken("", picture)["content"]) == 1
    assert spoken("look", None) == {"role": "user", "content": "look"}
