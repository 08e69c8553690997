"""Tokens back to text, as Transformers writes it: its tokenizers clean up after themselves."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from llmos.drivers.encoder.texts import read_json
from llmos.errors import LoadFailed, ModelRejected


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


class Units:
    """What frames of speech stand for: letters, by `vocab.json` (Graves et al. 2006, CTC)."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelRejected."""
        vocab = read_json(folder / "vocab.json")
        settings = read_json(folder / "tokenizer_config.json")
        if not vocab or not all(isinstance(i, int) for i in vocab.values()):
            raise ModelRejected("vocab.json: expected an object of numbers")
        self._units = {number: unit for unit, number in vocab.items()}
        self._delimiter = str(settings.get("word_delimiter_token", "|"))
        blank = settings.get("pad_token", "<pad>")
        self._blank = str(blank.get("content") if isinstance(blank, dict) else blank)
        self._others = {"<s>", "</s>", "<unk>"}

    def spell(self, frames: list[int]) -> str:
        """Repeats are one, blanks part what is twice, special units are not said."""
        units = [
            self._units.get(i, "") for n, i in enumerate(frames) if not n or frames[n - 1] != i
        ]
        said = [u for u in units if u != self._blank and u not in self._others]
        return "".join(" " if unit == self._delimiter else unit for unit in said).strip()
