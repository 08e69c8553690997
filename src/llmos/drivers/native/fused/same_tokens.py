"""Whether two models mean the same by a token's number."""

from __future__ import annotations

import json
from pathlib import Path

from llmos.errors import LoadFailed

_FILE = "tokenizer.json"


def has_tokenizer(folder: Path) -> bool:
    """Whether its files say what its tokens are."""
    return (folder / _FILE).is_file()


def check_same_tokens(ref: str, draft: Path, folder: Path) -> None:
    """Raises LoadFailed where a draft model's tokens are others than the model's.

    Their matrices may have rows for more tokens than there are, and not equally many.
    """
    if has_tokenizer(draft) != has_tokenizer(folder):
        raise LoadFailed(f"draft model {ref}: only one of the two has a {_FILE}")
    if not has_tokenizer(folder):
        return
    theirs, ours = (_read(ref, path / _FILE) for path in (draft, folder))
    if theirs == ours:
        return
    theirs_by, ours_by = _tokens(ref, theirs), _tokens(ref, ours)
    if theirs_by == ours_by:
        return
    number = min(n for n in theirs_by.keys() | ours_by.keys() if theirs_by.get(n) != ours_by.get(n))
    said = [repr(by.get(number, "nothing"))[:40] for by in (theirs_by, ours_by)]
    raise LoadFailed(
        f"draft model {ref} has another vocabulary: token {number} is {said[0]}, the model's is "
        f"{said[1]}"
    )


def _read(ref: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LoadFailed(f"draft model {ref}: {path.name}: {error.strerror}") from error


def _tokens(ref: str, content: bytes) -> dict[int, str]:
    """By number, as far as the vocabulary and the added tokens say."""
    try:
        parsed = json.loads(content)
        vocab = parsed["model"]["vocab"]
        if isinstance(vocab, dict):
            found = {int(number): str(token) for token, number in vocab.items()}
        else:  # a list of pieces with their scores
            found = {number: str(piece[0]) for number, piece in enumerate(vocab)}
        added = parsed.get("added_tokens") or []
        found |= {int(token["id"]): str(token["content"]) for token in added}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise LoadFailed(f"draft model {ref}: {_FILE} cannot be compared: {error!r}") from error
    return found
