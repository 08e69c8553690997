"""The preparer of remote models: passes the prompt through, and estimates what it costs."""

from __future__ import annotations

from pathlib import Path

from llmos.abi.inference import Prepared, PrepareItem
from llmos.drivers.openai.folder import read_folder
from llmos.drivers.openai.prompt import encode, estimate


class RemotePreparer:
    """Knows no tokenizer."""

    def __init__(self, chars_per_token: float) -> None:
        self._chars_per_token = chars_per_token

    def prepare(self, item: PrepareItem) -> Prepared:
        """Raises InvalidRequest."""
        tokens = encode(item.prompt)
        num_tokens = estimate(item.prompt, self._chars_per_token)
        return Prepared(item.request_id, tokens, num_tokens)


def make(folder: str) -> RemotePreparer:
    """The Preparer's entry. Raises LoadFailed."""
    return RemotePreparer(read_folder(Path(folder)).chars_per_token)
