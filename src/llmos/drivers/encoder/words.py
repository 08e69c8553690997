"""Tokens back to text, as Transformers writes it: its tokenizers clean up after themselves."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from llmos.drivers.encoder.texts import read_json
from llmos.errors import LoadFailed


class Words:
    """The tokenizer of one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises LoadFailed."""
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise LoadFailed(f"tokenizer.json: {error}") from error
        self._model = self._tokenizer.model
        said = read_json(folder / "tokenizer_config.json").get("unk_token")
        unknown = said.get("content") if isinstance(said, dict) else said
        self.unknown = self._tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None
        self.marks_subwords = bool(getattr(self._model, "continuing_subword_prefix", None))

    def token(self, token_id: int) -> str:
        """As it is in the vocabulary."""
        return self._tokenizer.id_to_token(token_id) or ""

    def join(self, tokens: list[str]) -> str:
        """The text that these tokens spell."""
        decoder = self._tokenizer.decoder
        return str(decoder.decode(tokens)) if decoder is not None else " ".join(tokens)

    def decode(self, token_ids: list[int], *, skip_special: bool = False) -> str:
        """The text of these ids."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=skip_special))
