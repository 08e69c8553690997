"""A GGUF file's vocabulary: text to tokens and tokens to bytes, by llama.cpp. No weights needed."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from llmos.drivers.gguf.library import last_words, library
from llmos.drivers.text.detokenize import ByteDecoding
from llmos.drivers.text.grammar import Grammars
from llmos.errors import InvalidRequest, ModelRejected

_TEMPLATE = b"tokenizer.chat_template"
_MAX_PIECE_BYTES = 1 << 20


class Vocab:
    """Of an open model, which must outlive it."""

    def __init__(self, model: Any) -> None:
        self._lib = library()
        self._model = model
        self._vocab = self._lib.llama_model_get_vocab(model)
        self.size = int(self._lib.llama_vocab_n_tokens(self._vocab))
        self._pieces: dict[int, bytes] = {}
        self._special: dict[str, int] | None = None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Special tokens written out in the text are those tokens. `special`: with those that the
        file asks to be added. `text` is valid Unicode."""
        data = text.encode()
        room = len(data) + 16
        for _ in range(2):
            tokens = (ctypes.c_int32 * room)()
            count = self._lib.llama_tokenize(
                self._vocab, data, len(data), tokens, room, special, True
            )
            if count >= 0:
                return tokens[:count]
            room = -count
        raise InvalidRequest("the text cannot be tokenized", param="prompt")

    def find_id(self, token: str) -> int | None:
        """Of a special token."""
        ids = self.encode(token, special=False)
        return ids[0] if len(ids) == 1 else None

    def special_ids(self) -> dict[str, int]:
        """All control tokens, by their texts."""
        if self._special is None:
            attribute, control = self._lib.llama_vocab_get_attr, self._lib.LLAMA_TOKEN_ATTR_CONTROL
            ids = [i for i in range(self.size) if attribute(self._vocab, i) & control]
            self._special = {self.special_bytes(i).decode(errors="replace"): i for i in ids}
        return self._special

    def grammars(self, vocab_size: int, eos_ids: list[int]) -> Grammars:
        """It takes none."""
        raise InvalidRequest("this model's tokenizer takes no grammar", param="grammar")

    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer."""
        is_end = self._lib.llama_vocab_is_eog
        return frozenset(i for i in range(self.size) if is_end(self._vocab, i))

    def decoding(self) -> ByteDecoding:
        """How its tokens become text."""
        spm = self._lib.llama_vocab_type(self._vocab) == self._lib.LLAMA_VOCAB_TYPE_SPM
        said = self.metadata(b"tokenizer.ggml.add_space_prefix")
        prefixed = spm if said is None else said == "true"
        return ByteDecoding(self.token_bytes, 1 if spm and prefixed else 0, self.special_bytes)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for; empty for control tokens."""
        found = self._pieces.get(token_id)
        if found is None:
            found = self._pieces[token_id] = self._piece(token_id, special=False)
        return found

    def special_bytes(self, token_id: int) -> bytes:
        """What a token is written as, control token or not."""
        return self._piece(token_id, special=True)

    def _piece(self, token_id: int, *, special: bool) -> bytes:
        room = 64
        while room <= _MAX_PIECE_BYTES:
            buffer = ctypes.create_string_buffer(room)
            count = self._lib.llama_token_to_piece(self._vocab, token_id, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
        return b""

    def metadata(self, key: bytes) -> str | None:
        """A value of the file as text; None: it has no such key."""
        size = self._lib.llama_model_meta_val_str(self._model, key, None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        self._lib.llama_model_meta_val_str(self._model, key, buffer, size + 1)
        return buffer.value.decode(errors="replace")

    def specials(self) -> dict[str, str]:
        """Texts of special tokens by the names that templates know them by."""
        lib, found = self._lib, {}
        for name in ("bos", "eos", "pad", "sep", "mask"):
            token_id = getattr(lib, f"llama_vocab_{name}")(self._vocab)
            if token_id >= 0:
                text = lib.llama_vocab_get_text(self._vocab, token_id)
                found[f"{name}_token"] = text.decode(errors="replace")
        return found

    def templates(self) -> dict[str, str]:
        """Chat templates by name."""
        named = {"default": _TEMPLATE, "tool_use": _TEMPLATE + b".tool_use"}
        found = {name: self.metadata(key) for name, key in named.items()}
        return {name: source for name, source in found.items() if source}


def open_model(path: Path, **params: Any) -> Any:
    """llama.cpp's handle on a file. Raises ModelRejected with its last words."""
    lib = library()
    last_words()
    given = lib.llama_model_default_params()
    given.n_gpu_layers = 0
    for name, value in params.items():
        setattr(given, name, value)
    model = lib.llama_model_load_from_file(str(path).encode(), given)
    if not model:
        raise ModelRejected(f"{path.name}: {last_words()}")
    return model
