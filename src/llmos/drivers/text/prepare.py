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
from llmos.drivers.items import IMAGES, no_images
from llmos.drivers.text.grammar import Grammars
from llmos.drivers.text.template import ChatTemplate
from llmos.drivers.text.tools import ToolPlan, in_words, plan_tools
from llmos.errors import InvalidRequest, ModelRejected
from llmos.shapes.toolcalls.formats import knows_calls, knows_tools

_TOOL_USE = "tool_use"
"""The name of a template that is for chats with tools alone."""

_RESERVED = {"messages", "tools", "documents"}


def make(folder: str) -> TextPreparer:
    """The entry named by `ModelVersion.prepare`. Raises ModelRejected."""
    return TextPreparer(*read_template(Path(folder)))


def read_template(folder: Path) -> tuple[FileTokenizer, dict[str, str], dict[str, str]]:
    """What a `TextPreparer` is made of. Raises ModelRejected."""
    config = _read_json(folder / "tokenizer_config.json")
    specials = _special_tokens(config, _read_json(folder / "special_tokens_map.json"))
    return FileTokenizer(folder), specials, _template_sources(folder, config)


class PromptTokenizer(Protocol):
    """A model's own tokenizer, wherever it comes from."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """`special`: with the special tokens that it adds to a text. `text` is valid Unicode."""
        ...

    def find_id(self, token: str) -> int | None:
        """Of a special token by its name."""
        ...

    def special_ids(self) -> dict[str, int]:
        """All special tokens, by their texts."""
        ...

    def grammars(self, vocab_size: int, eos_ids: list[int]) -> Grammars:
        """Over its vocabulary. Raises PluginError, InvalidRequest where it takes none."""
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

    def find_text(self, token_id: int) -> str:
        """Of a token, as its vocabulary has it; empty for one of none."""
        return self._tokenizer.id_to_token(token_id) or ""

    def special_ids(self) -> dict[str, int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    def grammars(self, vocab_size: int, eos_ids: list[int]) -> Grammars:
        return Grammars(self._tokenizer.to_str(), vocab_size, eos_ids)


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
        self._made: Grammars | None = None

    def prepare(self, item: PrepareItem) -> Prepared:
        """Tokens of the prompt, each within the vocabulary."""
        plan = self._plan(item)
        ids = self._ids(item, plan)
        if not ids:
            raise InvalidRequest("the prompt is empty", param="prompt")
        # bool is an int to Python, but not a token
        if not all(type(i) is int and 0 <= i < item.vocab_size for i in ids):
            wrong = next(i for i in ids if type(i) is not int or not 0 <= i < item.vocab_size)
            raise InvalidRequest(
                f"token id {str(wrong)[:40]} is not in the vocabulary of {item.vocab_size}",
                param="prompt",
            )
        grammar = item.grammar if plan is None else plan.grammar
        if grammar is not None:
            self._grammars(item.vocab_size).check(grammar)
        packed = array("i", ids).tobytes()
        if plan is None:
            return Prepared(item.request_id, packed, len(ids), grammar)
        shown = [i for i in plan.shown if i < item.vocab_size]
        return Prepared(item.request_id, packed, len(ids), grammar, plan.form, shown)

    def _plan(self, item: PrepareItem) -> ToolPlan | None:
        """What becomes of tools, where there are any that may be called."""
        prompt = item.prompt
        if not isinstance(prompt, ChatPrompt) or not prompt.tools or prompt.tool_choice == "none":
            return None
        name = self._name(with_tools=True)
        source = self._sources[name]
        knows = name == _TOOL_USE or knows_tools(source)
        special = self._tokenizer.special_ids()
        return plan_tools(source if knows else None, prompt, item.grammar, special)

    def _grammars(self, vocab_size: int) -> Grammars:
        """Made when the first grammar comes. Raises PluginError, InvalidRequest."""
        if self._made is None or self._made.vocab_size != vocab_size:
            end = self._tokenizer.find_id(self._specials.get("eos_token", ""))
            self._made = self._tokenizer.grammars(vocab_size, [] if end is None else [end])
        return self._made

    def _ids(self, item: PrepareItem, plan: ToolPlan | None) -> Sequence[int]:
        prompt = item.prompt
        if isinstance(prompt, ChatPrompt):
            return self._encode(self._render(prompt, plan), special=False)
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

    def _render(self, prompt: ChatPrompt, plan: ToolPlan | None) -> str:
        clash = _RESERVED & prompt.template_kwargs.keys()
        if clash:
            raise InvalidRequest(
                f"chat_template_kwargs may not set {', '.join(sorted(clash))}",
                param="chat_template_kwargs",
            )
        messages = prompt.messages
        if plan is not None and not plan.by_template:
            messages = in_words(messages, prompt.tools or [])
        elif plan is None and not knows_calls(self.source(with_tools=False)):
            messages = in_words(messages, [])
        shown = prompt.tools if plan is not None and plan.by_template else None
        variables: dict[str, Any] = {
            "add_generation_prompt": True,
            "documents": None,
            **self._specials,
            **prompt.template_kwargs,
            "messages": [self.shown(m, i) for i, m in enumerate(messages)],
            "tools": shown,
        }
        return self._template(with_tools=shown is not None).render(variables)

    def shown(self, message: dict[str, Any], index: int) -> dict[str, Any]:
        """A message as templates expect it: text content, arguments of tool calls as objects."""
        message = dict(message)
        message["content"] = _content(message.get("content"), index)
        if isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
        return message

    def source(self, *, with_tools: bool) -> str:
        """The template for a chat. Raises InvalidRequest where there is none."""
        return self._sources[self._name(with_tools=with_tools)]

    def _template(self, *, with_tools: bool) -> ChatTemplate:
        name = self._name(with_tools=with_tools)
        if name not in self._templates:
            self._templates[name] = ChatTemplate(self._sources[name])
        return self._templates[name]

    def _name(self, *, with_tools: bool) -> str:
        """Of the template for a chat. Raises InvalidRequest where there is none."""
        if not self._sources:
            raise InvalidRequest(
                "this model has no chat template; use /v1/completions", param="messages"
            )
        name = _TOOL_USE if with_tools and _TOOL_USE in self._sources else "default"
        if name not in self._sources:
            name = next(iter(self._sources))
        return name


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


def _content(content: Any, index: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(
            "content must be a string or a list of parts", param=f"messages.{index}.content"
        )
    return "".join(_text(part, f"messages.{index}.content.{at}") for at, part in enumerate(content))


def _text(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]  # type: ignore[no-any-return]
    if kind in IMAGES:
        raise no_images(part)
    raise InvalidRequest(
        f"content of type {str(kind)[:40]!r} is not supported by this model; only text is",
        param=where,
    )


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
