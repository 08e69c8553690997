"""Tasks that a generating model does: what it is asked, and what of its answer is the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmos.abi.inference import ChatPrompt, Grammar, Options, TextPrompt
from llmos.abi.program import Answer, Generate
from llmos.abi.tasks import TaskKind, TaskSpec
from llmos.errors import AnswerRejected, InvalidRequest
from llmos.programs.task.schema import check_schema, find_fault
from llmos.programs.task.template import Template

MAX_SHOWN_CHARS = 120

_LABELS = "{% for label in labels %}{{ label }}{% if not loop.last %}, {% endif %}{% endfor %}"

PROMPTS: dict[TaskKind, str] = {
    TaskKind.GENERATE: "{{ text }}",
    TaskKind.SUMMARIZE: (
        "Summarise the following text in its own language, in two or three sentences. Answer with "
        "the summary only.\n\n{{ text }}"
    ),
    TaskKind.TRANSLATE: (
        "Translate the following text into {{ language }}. Answer with the translation only.\n\n"
        "{{ text }}"
    ),
    TaskKind.CLASSIFY: (
        f"Which one of these labels fits the text: {_LABELS}? Answer with the label only.\n\n"
        "Text: {{ text }}"
    ),
    TaskKind.EXTRACT: (
        "Find the names in the text"
        f"{{% if labels %}} that are of these types: {_LABELS}{{% endif %}}. Answer with a JSON "
        'array of objects {"text": ..., "type": ...} only.\n\nText: {{ text }}'
    ),
    TaskKind.QA: (
        "Answer the question from the text, in a few words.\n\nText: {{ context }}\n\n"
        "Question: {{ question }}"
    ),
}
"""What is asked where the task has no prompt of its own."""

OWN = frozenset({"labels", "language", "row"})
"""Variables of a prompt that are no columns."""

ENTITIES: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"text": {"type": "string"}, "type": {"type": "string"}},
        "required": ["text", "type"],
    },
}

_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


class Prompting:
    """Of one task; `needs` are the columns it reads. Raises InvalidRequest for a prompt or a schema
    that cannot be used."""

    def __init__(self, spec: TaskSpec) -> None:
        if spec.kind not in PROMPTS:
            text = f"{spec.kind} needs a model for it; {spec.model} generates"
            raise InvalidRequest(text, param="model")
        if spec.kind is TaskKind.CLASSIFY and not spec.labels:
            raise InvalidRequest("a model that generates needs 'labels'", param="labels")
        if spec.kind is TaskKind.TRANSLATE and not (spec.language or spec.prompt):
            raise InvalidRequest("'language' says what to translate into", param="language")
        self._spec = spec
        self._template = Template(spec.prompt or PROMPTS[spec.kind])
        self.needs = sorted(self._template.names - OWN)
        self._schema = spec.schema
        if self._schema is None and spec.kind is TaskKind.EXTRACT:
            self._schema = ENTITIES
        if self._schema is not None:
            check_schema(self._schema)
        self._labels = {_normal(label): label for label in spec.labels}
        self._sampling = msgspec.structs.replace(spec.sampling, grammar=self._grammar())

    pack = 1

    def _grammar(self) -> Grammar | None:
        """What an answer has to be, where its driver can hold it to that. It is read with the same
        care in any case."""
        if self._schema is not None:
            return Grammar("json_schema", msgspec.json.encode(self._schema).decode())
        if self._spec.kind is TaskKind.CLASSIFY and not self._spec.prompt:
            labels = (msgspec.json.encode(label).decode() for label in self._spec.labels)
            return Grammar("lark", f"start: {' | '.join(labels)}")
        return None

    def loosen(self) -> None:
        """Ask in words alone."""
        self._sampling = msgspec.structs.replace(self._sampling, grammar=None)

    def piece(self, values: Mapping[str, Any]) -> str:
        """What one row is asked, by its columns and what they are called here. Raises
        InvalidRequest."""
        spec = self._spec
        variables = {"labels": spec.labels, "language": spec.language, "row": values, **values}
        text = self._template.render(variables)
        if not text.strip():
            raise InvalidRequest("the input is empty", param="input")
        if spec.schema is not None:
            asked = msgspec.json.encode(spec.schema).decode()
            text = f"{text}\n\nAnswer with JSON only, by this schema: {asked}"
        return text

    def request(self, pieces: Sequence[str], options: Options) -> Generate:
        """The call for one row."""
        spec, (text,) = self._spec, pieces
        if not spec.is_chat:
            whole = f"{spec.system}\n{text}" if spec.system else text
            return Generate(spec.model, TextPrompt(whole), self._sampling, options, "text")
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
        if spec.system:
            messages.insert(0, {"role": "system", "content": spec.system})
        return Generate(spec.model, ChatPrompt(messages), self._sampling, options)

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """Its result, or an AnswerRejected."""
        try:
            return [self._read(answer)]
        except AnswerRejected as error:
            return [error]

    def _read(self, answer: Answer) -> Any:
        text = answer.text.strip()
        if self._schema is not None:
            return self._read_json(text, is_cut=answer.finish_reason == "length")
        if self._spec.kind is TaskKind.CLASSIFY:
            return {"label": self._read_label(text)}
        return text

    def _read_json(self, text: str, *, is_cut: bool) -> Any:
        assert self._schema is not None
        fenced = _FENCE.match(text)
        try:
            value = msgspec.json.decode((fenced[1] if fenced else text).encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            why = "it was cut at max_tokens" if is_cut else str(error)
            raise AnswerRejected(f"the answer is not JSON ({why}): {_shown(text)}") from None
        fault = find_fault(value, self._schema)
        if fault:
            raise AnswerRejected(f"the answer does not fit its schema: {fault}")
        return value

    def _read_label(self, text: str) -> str:
        """The one label that is the answer, or that alone is found in it."""
        said = _normal(text)
        if said in self._labels:
            return self._labels[said]
        found = [label for normal, label in self._labels.items() if _holds(said, normal)]
        if len(found) != 1:
            raise AnswerRejected(f"the answer is none of the labels: {_shown(text)}")
        return found[0]


def _normal(text: str) -> str:
    return text.strip().strip(".。!！\"'“”‘’").casefold()


def _holds(said: str, label: str) -> bool:
    """As a word, where the script has words."""
    if not label.isascii():
        return label in said
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", said) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…")
