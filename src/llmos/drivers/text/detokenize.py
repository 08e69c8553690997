"""Tokens to text as they come: whole characters only, in time independent of what came before.

The pieces joined are the tokenizer's own decoding of the tokens in the context of the prompt (a
Llama decoder drops the first space of a text, not of every piece), with two exceptions that
streaming forces, both only for bytes that are not UTF-8: bytes of a character that never became
complete are dropped at the end, and a broken byte does not turn the characters before it, which
have left, into replacement characters.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class ByteState(msgspec.Struct, frozen=True, tag="bytes"):
    """Of a decoder with a byte rule: spaces still to drop, bytes of an unfinished character."""

    open_spaces: int
    pending: bytes
    flags: int


class WindowState(msgspec.Struct, frozen=True, tag="window"):
    """Of any other decoder: the last tokens, and how many of them have left as text."""

    window: list[int]
    num_done: int


DetokenizerState = ByteState | WindowState


class Detokenizer(Protocol):
    """One request's stream of tokens."""

    def push(self, token_ids: Iterable[int]) -> str:
        """The characters that are complete now."""
        ...

    def state(self) -> DetokenizerState:
        """All that the next `push` depends on."""
        ...


class Decoding:
    """How a tokenizer turns tokens into text. Shared by all requests of a model."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {
            token_id
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        decoder = tokenizer.decoder
        self._rule = _find_rule(None if decoder is None else json.loads(decoder.__getstate__()))
        self._bytes: dict[int, bytes] = {}

    def start(self, prompt: Sequence[int], shown: Sequence[int] = ()) -> Detokenizer:
        """A detokenizer for what follows a prompt. `shown`: special tokens that are text, too."""
        if self._rule is None:
            window = prompt[-_WindowDetokenizer.CONTEXT :]
            return _WindowDetokenizer(self._tokenizer, window, shown=self._texts(shown))
        return _ByteDetokenizer(self._to_bytes(shown), self._open_spaces(prompt))

    def restart(self, state: DetokenizerState, shown: Sequence[int] = ()) -> Detokenizer:
        """One that goes on from a state. Raises ValueError: it is another kind of decoder's."""
        if self._rule is not None and isinstance(state, ByteState):
            return _ByteDetokenizer(self._to_bytes(shown), state.open_spaces, state)
        if self._rule is None and isinstance(state, WindowState):
            texts = self._texts(shown)
            return _WindowDetokenizer(self._tokenizer, state.window, state.num_done, shown=texts)
        raise ValueError("the tokenizer's decoder is another one")

    def piece(self, token_id: int) -> bytes:
        """What a token is by itself, special or not; empty for unknown ones."""
        if token_id not in self._special and self._rule is not None:
            return self.token_bytes(token_id)
        return self._tokenizer.decode([token_id], skip_special_tokens=False).encode()

    def _texts(self, shown: Sequence[int]) -> dict[int, str]:
        return {i: self._tokenizer.id_to_token(i) or "" for i in shown}

    def _to_bytes(self, shown: Sequence[int]) -> Callable[[int], bytes]:
        texts = {i: text.encode() for i, text in self._texts(shown).items()}
        return _showing(self.token_bytes, texts)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; empty for special and unknown ones."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._find_bytes(token_id)
        return found

    def _find_bytes(self, token_id: int) -> bytes:
        if token_id in self._special or self._rule is None:
            return b""
        token = self._tokenizer.id_to_token(token_id)
        return b"" if token is None else self._rule.to_bytes(token)

    def _open_spaces(self, prompt: Sequence[int]) -> int:
        assert self._rule is not None
        return _spaces_left(self.token_bytes, self._rule.leading_spaces, prompt)


class ByteDecoding:
    """The same for a tokenizer that tells the bytes of every token; it drops `leading_spaces` of
    the whole text. `special_bytes`: what a special token is written as."""

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        leading_spaces: int,
        special_bytes: Callable[[int], bytes],
    ) -> None:
        self._token_bytes = token_bytes
        self._leading_spaces = leading_spaces
        self._special_bytes = special_bytes

    def start(self, prompt: Sequence[int], shown: Sequence[int] = ()) -> Detokenizer:
        """A detokenizer for what follows a prompt. `shown`: special tokens that are text, too."""
        spaces = _spaces_left(self._token_bytes, self._leading_spaces, prompt)
        return _ByteDetokenizer(self._to_bytes(shown), spaces)

    def restart(self, state: DetokenizerState, shown: Sequence[int] = ()) -> Detokenizer:
        """One that goes on from a state. Raises ValueError: it is another kind of decoder's."""
        if not isinstance(state, ByteState):
            raise ValueError("the tokenizer's decoder is another one")
        return _ByteDetokenizer(self._to_bytes(shown), state.open_spaces, state)

    def _to_bytes(self, shown: Sequence[int]) -> Callable[[int], bytes]:
        return _showing(self._token_bytes, {i: self._special_bytes(i) for i in shown})


def _showing(
    token_bytes: Callable[[int], bytes], shown: Mapping[int, bytes]
) -> Callable[[int], bytes]:
    """`token_bytes`, but for those that are shown."""
    if not shown:
        return token_bytes

    def to_bytes(token_id: int) -> bytes:
        found = shown.get(token_id)
        return token_bytes(token_id) if found is None else found

    return to_bytes


def _spaces_left(
    token_bytes: Callable[[int], bytes], leading_spaces: int, prompt: Sequence[int]
) -> int:
    """How many leading spaces a decoder still drops after this prompt."""
    spaces = leading_spaces
    for token_id in prompt:
        if spaces == 0:
            break
        visible = token_bytes(token_id)
        dropped = min(spaces, len(visible) - len(visible.lstrip(b" ")))
        spaces = spaces - dropped if dropped == len(visible) else 0
    return spaces


class _Rule:
    """A decoder that maps each token to bytes, and drops `leading_spaces` of the whole text."""

    def __init__(self, to_bytes: Callable[[str], bytes], leading_spaces: int) -> None:
        self.to_bytes = to_bytes
        self.leading_spaces = leading_spaces


def _find_rule(decoder: Any) -> _Rule | None:
    """The byte rule equal to a `tokenizer.json` decoder, or None when there is none."""
    if not isinstance(decoder, dict):
        return None
    parts = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"]:
        return _Rule(_byte_level, 0)
    if kinds[:3] != ["Replace", "ByteFallback", "Fuse"] or kinds[3:] not in ([], ["Strip"]):
        return None
    pattern, content = parts[0].get("pattern", {}).get("String"), parts[0].get("content")
    if not pattern or not isinstance(content, str):
        return None
    spaces = 0
    if len(parts) == 4:
        if parts[3].get("content") != " " or parts[3].get("stop") != 0:
            return None
        spaces = int(parts[3].get("start", 0))

    def to_bytes(token: str) -> bytes:
        token = token.replace(pattern, content)
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.encode()

    return _Rule(to_bytes, spaces)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: itself when printable, else 256 and up in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_ALPHABET[char] for char in token])
    except KeyError:  # an added token, whose text is kept as it is
        return token.encode()


class _ByteDetokenizer:
    """For decoders with a byte rule: bytes into an incremental UTF-8 decoder."""

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        open_spaces: int,
        state: ByteState | None = None,
    ) -> None:
        self._token_bytes = token_bytes
        self._open_spaces = open_spaces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        if state is not None:
            self._utf8.setstate((state.pending, state.flags))

    def state(self) -> ByteState:
        pending, flags = self._utf8.getstate()
        return ByteState(self._open_spaces, pending, flags)

    def push(self, token_ids: Iterable[int]) -> str:
        data = b"".join([self._token_bytes(token_id) for token_id in token_ids])
        if self._open_spaces and data:
            spaces = min(self._open_spaces, len(data) - len(data.lstrip(b" ")))
            data = data[spaces:]
            self._open_spaces = 0 if data else self._open_spaces - spaces
        return self._utf8.decode(data)


class _WindowDetokenizer:
    """For any other decoder: decodes a short window of tokens with and without the new ones.

    The window begins at a token that completed a character, and what it held before is subtracted.
    """

    MAX_WINDOW = 32
    """Tokens that may wait for a character to become complete before they leave as they are."""

    CONTEXT = 6
    """Tokens of the past that a piece may depend on."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        window: Sequence[int],
        num_done: int | None = None,
        *,
        shown: Mapping[int, str],
    ) -> None:
        self._tokenizer = tokenizer
        self._shown = shown
        self._window = list(window)
        self._num_done = len(self._window) if num_done is None else num_done

    def state(self) -> WindowState:
        return WindowState(list(self._window), self._num_done)

    def push(self, token_ids: Iterable[int]) -> str:
        return "".join([self._push(token_id) for token_id in token_ids])

    def _push(self, token_id: int) -> str:
        if (special := self._shown.get(token_id)) is not None:
            # what waited for the rest of a character will not get it
            self._window, self._num_done = [], 0
            return special
        self._window.append(token_id)
        before = self._decode(self._window[: self._num_done])
        after = self._decode(self._window)
        waiting = len(self._window) - self._num_done
        if len(after) <= len(before) or (after.endswith(REPLACEMENT) and waiting < self.MAX_WINDOW):
            return ""
        self._window = self._window[max(0, self._num_done - self.CONTEXT) :]
        self._num_done = len(self._window)
        return after[len(before) :]

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)
