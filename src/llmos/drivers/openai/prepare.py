"""The preparer of remote models: passes the prompt through, and estimates what it costs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmos.abi.inference import ChatPrompt, ItemsPrompt, Prepared, PrepareItem, Prompt
from llmos.drivers.openai.folder import read_folder
from llmos.drivers.openai.prompt import encode, estimate, estimate_chars
from llmos.drivers.openai.vectors import num_chars, read_wanted


class RemotePreparer:
    """Knows no tokenizer."""

    def __init__(self, chars_per_token: float) -> None:
        self._chars_per_token = chars_per_token

    def prepare(self, item: PrepareItem) -> Prepared:
        """Raises InvalidRequest."""
        if isinstance(item.prompt, ItemsPrompt):
            wanted = read_wanted(item.prompt)
            cost = estimate_chars(num_chars(wanted), self._chars_per_token)
            return Prepared(item.request_id, b"", cost, payload=msgspec.json.encode(wanted))
        tokens = encode(item.prompt)
        num_tokens = estimate(item.prompt, self._chars_per_token)
        return Prepared(item.request_id, tokens, num_tokens, tool_format=_tool_format(item.prompt))


def _tool_format(prompt: Prompt) -> str:
    """How `render` writes the calls of an answer; empty where none are asked for."""
    has_tools = isinstance(prompt, ChatPrompt) and prompt.tools and prompt.tool_choice != "none"
    return "hermes" if has_tools else ""


def make(folder: str) -> RemotePreparer:
    """The Preparer's entry. Raises LoadFailed."""
    return RemotePreparer(read_folder(Path(folder)).chars_per_token)
