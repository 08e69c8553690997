"""Prompts to tokens with a model's own tokenizer and chat template. Torch-free.

Text gets the special tokens that its tokenizer adds, a chat those that its template writes, token
ids none: nothing is doubled and nothing forgotten.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from llmos.abi.inference import ChatPrompt, ItemsPrompt, Prepared, PrepareItem, TextPrompt
from llmos.drivers.text.template import ChatTemplate
from llmos.errors import InvalidRequest, ModelRejected

_RESERVED = {"messages", "tools", "documents"}


def make(folder: str) -> TextPreparer:
    """The entry named by `ModelVersion.prepare`. Raises ModelRejected."""
    path = Path(folder)
    config = _read_json(path / "tokenizer_config.json")
    specials = _special_tokens(config, _read_json(path / "special_tokens_map.json"))
    return TextPreparer(FileTokenizer(path), specials, _template_sources(path, config))


class PromptTokenizer(Protocol):
    """A model's own tokenizer, wherever it comes from."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """`special`: with the special tokens that it adds to a text. `text` is valid Unicode."""
        ...

    def find_id(self, token: str) -> int | None:
        """Of a special token by its name."""
        ...


class FileTokenizer:
    """Of a `tokenizer.json`. Raises ModelRejected."""

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ModelRejected(f"tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def find_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found


class TextPreparer:
    """Behind `abi.Preparer`, for one model. Raises InvalidRequest.

    `specials` are the texts of special tokens by the names that templates know them by (`bos_token`
    …), `sources` templates by name.
    """

    def __init__(
        self, tokenizer: PromptTokenizer, specials: dict[str, str], sources: dict[str, str]
    ) -> None:
        self._tokenizer = tokenizer
        self._specials = specials
        self._sources = sources
        self._templates: dict[str, ChatTemplate] = {}

    def prepare(self, item: PrepareItem) -> Prepared:
        """Tokens of the prompt, each within the vocabulary."""
        ids = self._ids(item)
        if not ids:
            raise InvalidRequest("the prompt is empty", param="prompt")
        # bool is an int to Python, but not a token
        if not all(type(i) is int and 0 <= i < item.vocab_size for i in ids):
            wrong = next(i for i in ids if type(i) is not int or not 0 <= i < item.vocab_size)
            raise InvalidRequest(
                f"token id {str(wrong)[:40]} is not in the vocabulary of {item.vocab_size}",
                param="prompt",
            )
        return Prepared(item.request_id, array("i", ids).tobytes(), len(ids))

    def _ids(self, item: PrepareItem) -> Sequence[int]:
        prompt = item.prompt
        if isinstance(prompt, ChatPrompt):
            return self._encode(self._render(prompt), special=False)
        if isinstance(prompt, TextPrompt):
            return self._encode(prompt.text, special=True) or self._bos()
        if isinstance(prompt, ItemsPrompt):
            raise InvalidRequest("this model generates: it takes no items", param="inputs")
        return prompt.token_ids

    def _encode(self, text: str, *, special: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("the prompt has half a surrogate pair", param="prompt") from error
        return self._tokenizer.encode(text, special=special)

    def _bos(self) -> list[int]:
        """An empty text begins with the beginning, where a model has one."""
        bos = self._specials.get("bos_token")
        token_id = None if bos is None else self._tokenizer.find_id(bos)
        return [] if token_id is None else [token_id]

    def _render(self, prompt: ChatPrompt) -> str:
        clash = _RESERVED & prompt.template_kwargs.keys()
        if clash:
            raise InvalidRequest(
                f"chat_template_kwargs may not set {', '.join(sorted(clash))}",
                param="chat_template_kwargs",
            )
        variables: dict[str, Any] = {
            "add_generation_prompt": True,
            "documents": None,
            **self._specials,
            **prompt.template_kwargs,
            "messages": [_message(m, i) for i, m in enumerate(prompt.messages)],
            "tools": prompt.tools or None,
        }
        return self._template(with_tools=bool(prompt.tools)).render(variables)

    def _template(self, *, with_tools: bool) -> ChatTemplate:
        if not self._sources:
            raise InvalidRequest(
                "this model has no chat template; use /v1/completions", param="messages"
            )
        name = "tool_use" if with_tools and "tool_use" in self._sources else "default"
        if name not in self._sources:
            name = next(iter(self._sources))
        if name not in self._templates:
            self._templates[name] = ChatTemplate(self._sources[name])
        return self._templates[name]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _special_tokens(*configs: dict[str, Any]) -> dict[str, str]:
    """`bos_token` and the like, by name; each is a string or an object with `content`."""
    found: dict[str, str] = {}
    for config in configs:
        for name, said in config.items():
            value = said.get("content") if isinstance(said, dict) else said
            if name.endswith("_token") and isinstance(value, str):
                found.setdefault(name, value)
    return found


def _template_sources(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Templates by name. A file of its own wins over the tokenizer's configuration."""
    said = config.get("chat_template")
    if isinstance(said, str):
        found = {"default": said}
    elif isinstance(said, list):
        found = {
            entry["name"]: entry["template"]
            for entry in said
            if isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("template"), str)
        }
    else:
        found = {}
    of_processor = _read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(of_processor, str):
        found.setdefault("default", of_processor)
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = path.read_text(encoding="utf-8", errors="replace")
    if (folder / "chat_template.jinja").is_file():
        path = folder / "chat_template.jinja"
        found["default"] = path.read_text(encoding="utf-8", errors="replace")
    return found


def _message(message: dict[str, Any], index: int) -> dict[str, Any]:
    """A message as templates expect it: text content, arguments of tool calls as objects."""
    message = dict(message)
    message["content"] = _content(message.get("content"), index)
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return message


def _content(content: Any, index: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(
            "content must be a string or a list of parts", param=f"messages[{index}].content"
        )
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest(
                f"content of type {str(kind)[:40]!r} is not supported by this model; only text is",
                param=f"messages[{index}].content[{at}]",
            )
        texts.append(part["text"])
    return "".join(texts)


def _tool_call(call: Any) -> Any:
    """OpenAI carries arguments as a JSON string, templates print them as an object."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments)
        except (ValueError, RecursionError):
            function["arguments"] = arguments
    return {**call, "function": function}
