"""A chat as the browser's tab keeps it: whole, bounded, and nobody else's."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from llmos.abi.inference import Usage
from llmos.api.config import MIB, ApiConfig
from llmos.console.views.talk import EARLIER_IMAGE, Picture, conversation, spoken
from llmos.console.views.transcript import (
    MAX_PACKET_BYTES,
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
    assert [turn.words for turn in found.sides[0].turns] == [str(n) for n in range(42, 50)]
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


def _words(text: str, max_chars: int) -> list[list[str]]:
    found = unpack(text, ME, max_chars)
    assert found is not None
    return [[turn.words for turn in side.turns] for side in found.sides]


def test_sides_share_what_there_is_by_what_they_have() -> None:
    long = _turn("long", "x" * 250_000)
    alone = Transcript(ME, [Side("pilot", [long]), Side("echo", [])])
    assert _words(pack(alone, 400_000), 400_000) == [["long"], []]
    beside = Transcript(ME, [Side("pilot", [long]), Side("echo", [_turn("short")])])
    assert _words(pack(beside, 400_000), 400_000) == [["long"], ["short"]]
    many = [_turn(str(n), "x" * 81) for n in range(10)]
    assert {turn.size for turn in many} == {100}
    both = Transcript(ME, [Side("pilot", many), Side("echo", list(many))])
    assert _words(pack(both, 600), 600) == [["7", "8", "9"], ["7", "8", "9"]]


def test_a_turn_that_is_too_large_takes_no_other_with_it() -> None:
    turns = [_turn("a"), _turn("b"), _turn("huge", "x" * 5000)]
    assert _words(pack(Transcript(ME, [Side("pilot", turns)]), 1000), 1000) == [["a", "b"]]


@pytest.mark.parametrize("sign", ["x", "你", '"', "\\", "\x01", "🙂"])
def test_what_is_kept_can_be_sent_back(sign: str) -> None:
    """As a text in a message of JSON, which escapes what is escaped already."""
    turns = [_turn(str(n), sign * 20_000) for n in range(45)]
    text = pack(Transcript(ME, [Side("pilot", turns)]), 900_000)
    assert len(json.dumps(text, ensure_ascii=False).encode()) <= MAX_PACKET_BYTES
    kept = _words(text, 900_000)[0]
    assert kept
    assert kept == [str(n) for n in range(45 - len(kept), 45)]
    one_more = pack(Transcript(ME, [Side("pilot", [_turn("x", sign * 900_000)])]), 10_000_000)
    assert len(json.dumps(one_more, ensure_ascii=False).encode()) <= MAX_PACKET_BYTES


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


def test_of_the_images_only_the_newest_is_sent() -> None:
    first, last = Picture(b"first", "image/png"), Picture(b"last", "image/png")
    answer = {"role": "assistant", "content": "a cat"}
    history = [
        spoken("look", first),
        answer,
        spoken("", first),
        answer,
        spoken("and this?", last),
        answer,
        spoken("sure?", None),
    ]
    sent = conversation("", history)
    assert [message["content"] for message in sent] == [
        f"look\n{EARLIER_IMAGE}",
        "a cat",
        EARLIER_IMAGE,
        "a cat",
        spoken("and this?", last)["content"],
        "a cat",
        "sure?",
    ]
    assert history[0] == spoken("look", first)  # what is there is not changed: it may be stopped


@pytest.mark.parametrize("max_body_bytes", [1024, 100_000, 8 * MIB, 64 * MIB])
def test_an_image_that_may_be_given_fits_into_a_body(max_body_bytes: int) -> None:
    config = ApiConfig(max_body_bytes=max_body_bytes)
    most = config.max_inline_image_bytes
    words = "x" * (min(MIB, max_body_bytes // 4) - 240)
    said = spoken(words, Picture(b"i" * most, "image/jpeg"))
    body = {"model": "vision", "messages": conversation("be kind", [said]), "stream": True}
    assert len(msgspec.json.encode(body)) <= max_body_bytes
    assert most <= config.max_media_bytes
    assert most * 2 > min(max_body_bytes, config.max_media_bytes)
