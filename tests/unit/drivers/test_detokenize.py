"""Whole characters, exact text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from llmos.drivers.text.detokenize import Decoding, DetokenizerState
from tests.unit.drivers.tiny import (
    byte_fallback_tokenizer,
    byte_level_tokenizer,
    metaspace_tokenizer,
)

FAMILY = "👩\u200d👩\u200d👧\u200d👦"
TEXTS = [
    "the the",
    " leading",
    "你好，世界。",
    "🎉🎊",
    FAMILY,
    "é\u0301",
    "a\n\n  b",
    "<tool call>",
    "",
]
TOKENIZERS = {
    "byte_level": byte_level_tokenizer(),
    "byte_fallback": byte_fallback_tokenizer(),
    "metaspace": metaspace_tokenizer(),
}
DECODINGS = {name: Decoding(tokenizer) for name, tokenizer in TOKENIZERS.items()}
written = st.text(
    st.sampled_from("the abcdo.\n你好世界éñ🎉👩\u200d👦\u0301")
    | st.characters(exclude_categories=["Cs"]),
    max_size=40,
)


def stream(decoding: Decoding, prompt: list[int], ids: list[int]) -> list[str]:
    detokenizer = decoding.start(prompt)
    return [detokenizer.push([i]) for i in ids]


def in_context(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
    return tokenizer.decode(prompt + ids)[len(tokenizer.decode(prompt)) :]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_its_state_is_all_of_it(name: str, data: st.DataObject) -> None:
    """One made anew from the state before every token says the same."""
    decoding, size = DECODINGS[name], TOKENIZERS[name].get_vocab_size()
    ids = st.lists(st.integers(0, size - 1), max_size=40)
    prompt, after = data.draw(ids), data.draw(ids)
    detokenizer, pieces = decoding.start(prompt), []
    for i in after:
        state = msgspec.msgpack.encode(detokenizer.state())
        detokenizer = decoding.restart(msgspec.msgpack.decode(state, type=DetokenizerState))
        pieces.append(detokenizer.push([i]))
    assert pieces == stream(decoding, prompt, after)


def test_a_state_of_another_decoder_is_refused() -> None:
    for mine, other in (("byte_level", "metaspace"), ("metaspace", "byte_fallback")):
        with pytest.raises(ValueError, match="another one"):
            DECODINGS[mine].restart(DECODINGS[other].start([1]).state())


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
@settings(max_examples=100, deadline=None)
@given(before=written, after=written)
def test_pieces_are_whole_and_join_to_the_decoding(name: str, before: str, after: str) -> None:
    tokenizer, decoding = TOKENIZERS[name], DECODINGS[name]
    prompt, ids = (
        tokenizer.encode(before).ids,
        tokenizer.encode(after, add_special_tokens=False).ids,
    )
    pieces = stream(decoding, prompt, ids)
    assert "".join(pieces) == in_context(tokenizer, prompt, ids)
    assert "\ufffd" in after or not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("the abcdo.你好，世界🎉"), max_size=30), st.integers(0, 8))
def test_any_other_decoder_goes_through_a_window(chars: list[str], cut: int) -> None:
    tokenizer = TOKENIZERS["metaspace"]
    ids = tokenizer.encode("".join(chars)).ids
    prompt, ids = ids[:cut], ids[cut:]
    pieces = stream(DECODINGS["metaspace"], prompt, ids)
    assert "".join(pieces) == in_context(tokenizer, prompt, ids)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 270), max_size=30))
def test_any_bytes_at_all(ids: list[int]) -> None:
    """Broken bytes in the middle are shown as the tokenizer shows them, cut ones are not."""
    whole = TOKENIZERS["byte_level"].decode(ids)
    made = "".join(stream(DECODINGS["byte_level"], [], ids))
    assert whole.startswith(made)
    assert set(whole[len(made) :]) <= {"\ufffd"}


@pytest.mark.parametrize("text", TEXTS)
def test_half_a_character_waits(text: str) -> None:
    tokenizer, decoding = TOKENIZERS["byte_fallback"], DECODINGS["byte_fallback"]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    seen = ""
    for piece in stream(decoding, [1], ids):
        seen += piece
        assert text.startswith(seen)
    assert seen == text


def test_a_cut_character_is_not_shown() -> None:
    tokenizer, decoding = TOKENIZERS["byte_fallback"], DECODINGS["byte_fallback"]
    ids = tokenizer.encode("a你", add_special_tokens=False).ids
    assert "".join(stream(decoding, [1], ids[:-1])) == "a"


def test_a_broken_byte_leaves_the_characters_before_it() -> None:
    decoding = DECODINGS["byte_fallback"]
    byte = TOKENIZERS["byte_fallback"].token_to_id
    ids = [byte(f"<0x{b:02X}>") for b in (0xE4, 0xBD, 0xA0, 0xFF, 0x41)]
    assert "".join(stream(decoding, [1], ids)) == "你\ufffdA"


def test_the_first_space_is_dropped_once() -> None:
    tokenizer, decoding = TOKENIZERS["byte_fallback"], DECODINGS["byte_fallback"]
    the = tokenizer.token_to_id("▁the")
    assert stream(decoding, [1], [the, the]) == ["the", " the"]
    assert stream(decoding, [1, the], [the]) == [" the"]
    space = tokenizer.token_to_id("▁")
    assert stream(decoding, [1, space], [the]) == [" the"]


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_special_and_unknown_tokens_are_silent(name: str) -> None:
    tokenizer, decoding = TOKENIZERS[name], DECODINGS[name]
    ids = [tokenizer.token_to_id("</s>"), 299, tokenizer.token_to_id("a"), 100_000]
    assert "".join(stream(decoding, [], ids)) == "a"


def test_real_tokenizer(test_data: Path) -> None:
    folder = test_data / "models" / "stories260k"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    golden = json.loads((folder / "golden.json").read_text())
    decoding = Decoding(tokenizer)
    pieces = stream(decoding, [1], golden["ids_after_bos_numpy_reference"])
    assert "".join(pieces) == golden["text"]
    for text in (*golden["encode_examples"], FAMILY, "春眠不觉晓，处处闻啼鸟。"):
        ids = tokenizer.encode(text).ids
        assert "".join(stream(decoding, ids[:1], ids[1:])) == text


def test_time_per_token_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window decodes a bounded number of tokens, even when no character ever completes."""
    longest = 0
    decoding = DECODINGS["metaspace"]
    detokenizer = decoding.start([])
    decode: Callable[[list[int]], str] = detokenizer._decode  # type: ignore[attr-defined]

    def counting(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids) + "\ufffd" * len(ids)

    monkeypatch.setattr(detokenizer, "_decode", counting)
    for _ in range(500):
        detokenizer.push([2])
    assert longest <= 6 + 2 * 32
