"""The preparer of remote models: passes the prompt through, and estimates what it costs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmos.abi.inference import ChatPrompt, ItemsPrompt, Prepared, PrepareItem, Prompt
from llmos.abi.remote import RemoteSpec
from llmos.drivers.openai.folder import read_folder
from llmos.drivers.openai.pictures import spill_images
from llmos.drivers.openai.prompt import encode, estimate, estimate_chars
from llmos.drivers.openai.vectors import num_chars, read_wanted
from llmos.drivers.openai.wishes import grammar_fields


class RemotePreparer:
    """Knows no tokenizer, and compiles no grammar: whether one can be had is the remote's to say,
    whether it can be asked for one is known here."""

    def __init__(self, spec: RemoteSpec) -> None:
        self._spec = spec
        self._chars_per_token = spec.chars_per_token

    def prepare(self, item: PrepareItem) -> Prepared:
        """Raises InvalidRequest, UnsupportedParameter, StorageError."""
        if isinstance(item.prompt, ItemsPrompt):
            wanted = read_wanted(item.prompt)
            cost = estimate_chars(num_chars(wanted), self._chars_per_token)
            return Prepared(item.request_id, b"", cost, payload=msgspec.json.encode(wanted))
        tokens = encode(item.prompt)
        grammar_fields(item.grammar, self._spec, is_chat=isinstance(item.prompt, ChatPrompt))
        num_tokens = estimate(item.prompt, self._chars_per_token)
        form = _tool_format(item.prompt)
        payload, spill = spill_images(item)
        return Prepared(
            item.request_id,
            tokens,
            num_tokens,
            item.grammar,
            form,
            payload=payload,
            spill=spill,
        )


def _tool_format(prompt: Prompt) -> str:
    """How `render` writes the calls of an answer; empty where none are asked for."""
    has_tools = isinstance(prompt, ChatPrompt) and prompt.tools and prompt.tool_choice != "none"
    return "hermes" if has_tools else ""


def make(folder: str) -> RemotePreparer:
    """The Preparer's entry. Raises LoadFailed."""
    return RemotePreparer(read_folder(Path(folder)))
