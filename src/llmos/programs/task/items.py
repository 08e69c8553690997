"""Tasks that a model made for them does: many inputs in one call, answered item by item."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmos.abi.events import ItemOutput
from llmos.abi.inference import ItemsPrompt, Options
from llmos.abi.program import Answer, Generate
from llmos.abi.tasks import TaskKind, TaskSpec
from llmos.errors import AnswerRejected, InvalidRequest, from_info
from llmos.programs.task.media import read_media, to_files

PACK = 32
"""Inputs in one call."""

MEDIA = frozenset({TaskKind.CAPTION, TaskKind.TRANSCRIBE})
MEDIA_PACK = 8
"""Images or recordings in one call."""

MAX_DOCUMENTS = 1000
_TEXTS = ("text", "summary_text", "translation_text", "generated_text")

NEEDS: dict[TaskKind, list[str]] = {
    TaskKind.QA: ["question", "context"],
    TaskKind.RERANK: ["query", "documents"],
    TaskKind.CAPTION: ["image"],
    TaskKind.TRANSCRIBE: ["audio"],
}
"""Columns that a kind reads; `text` where nothing is said."""


class Itemwise:
    """Of one task; what is no text goes to files in `folder`, which are the caller's to remove.
    Raises InvalidRequest for what a model made for it has no use for."""

    def __init__(
        self,
        spec: TaskSpec,
        folder: str,
        read: Callable[[ItemOutput], Any] | None = None,
    ) -> None:
        """`read`: what of an output is the result, in place of the kind's own."""
        if spec.prompt or spec.system or spec.schema is not None:
            text = f"a prompt or a schema is for a model that generates; {spec.model} does not"
            raise InvalidRequest(text, param="prompt")
        self._spec = spec
        self.needs = NEEDS.get(spec.kind, ["text"])
        self.pack = 1 if spec.kind is TaskKind.RERANK else PACK
        if spec.kind in MEDIA:
            self.pack = MEDIA_PACK
        self._folder = folder
        self._params = dict(spec.params)
        if spec.kind is TaskKind.CLASSIFY and spec.labels:
            self._params["candidate_labels"] = spec.labels
        if spec.kind is TaskKind.TRANSLATE and spec.language:
            self._params.setdefault("target_lang", spec.language)
        self._read = read or _READ[spec.kind]

    def piece(self, values: Mapping[str, Any]) -> Any:
        """What is sent of one row. Raises InvalidRequest."""
        kind = self._spec.kind
        if kind is TaskKind.QA:
            return {name: _text(values[name], name) for name in self.needs}
        if kind in MEDIA:
            return read_media(values[self.needs[0]], self.needs[0])
        if kind is not TaskKind.RERANK:
            return _text(values["text"], "text")
        query, documents = _text(values["query"], "query"), values["documents"]
        if not isinstance(documents, list) or not 0 < len(documents) <= MAX_DOCUMENTS:
            text = f"'documents' is no list of 1 to {MAX_DOCUMENTS} texts"
            raise InvalidRequest(text, param="documents")
        return [{"query": query, "text": _text(one, "documents")} for one in documents]

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        """One call for all of them."""
        spec = self._spec
        items = list(pieces[0]) if spec.kind is TaskKind.RERANK else list(pieces)
        blobs = []
        if spec.kind in MEDIA:
            blobs = to_files(pieces, self._folder)
            items = [{"blob": number} for number in range(len(blobs))]
        prompt = ItemsPrompt(spec.work, items, self._params, blobs)
        return Generate(spec.model, prompt, spec.sampling, options, spec.work)

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """For each row its result, or an LLMOSError."""
        outputs = {output.index: output for output in answer.outputs}
        if self._spec.kind is TaskKind.RERANK:
            return [_ranked(sorted(outputs.values(), key=lambda output: output.index))]
        return [self._one(outputs.get(index)) for index in range(num_rows)]

    def loosen(self) -> None:
        """It sends none."""

    def _one(self, output: ItemOutput | None) -> Any:
        if output is None:
            return AnswerRejected("the model said nothing of this input")
        if output.error is not None:
            return from_info(output.error)
        try:
            return self._read(output)
        except (LookupError, TypeError, ValueError) as error:
            return AnswerRejected(f"the model's answer has another shape: {error!r:.100}")


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest(f"{name!r} is no text", param=name)
    text = str(value)
    if not text.strip():
        raise InvalidRequest(f"{name!r} is empty", param=name)
    return text


def _label(output: ItemOutput) -> dict[str, Any]:
    best = output.value[0]
    return {"label": str(best["label"]), "score": round(float(best["score"]), 6)}


def _answer(output: ItemOutput) -> dict[str, Any]:
    best = output.value[0]
    return {"answer": str(best["answer"]), "score": round(float(best["score"]), 6)}


def _vector(output: ItemOutput) -> list[float]:
    vector = array("f", output.data)
    if not vector:
        raise ValueError("no vector")
    return [round(x, 7) for x in vector]


def _written(output: ItemOutput) -> str:
    value = output.value
    if isinstance(value, list):
        value = value[0]
    if isinstance(value, dict):
        value = next(value[name] for name in _TEXTS if name in value)
    return str(value).strip()


def _ranked(outputs: Sequence[ItemOutput]) -> Any:
    """Best first; a document that could not be read fails the row: an order without it is none."""
    wrong = next((output.error for output in outputs if output.error is not None), None)
    if wrong is not None:
        return from_info(wrong)
    ranked = [
        {"index": output.index, "score": round(float(output.value["score"]), 6)}
        for output in outputs
    ]
    return sorted(ranked, key=lambda one: (-one["score"], one["index"]))


_READ: dict[TaskKind, Callable[[ItemOutput], Any]] = {
    TaskKind.CLASSIFY: _label,
    TaskKind.EXTRACT: lambda output: output.value,
    TaskKind.QA: _answer,
    TaskKind.EMBED: _vector,
    TaskKind.SUMMARIZE: _written,
    TaskKind.TRANSLATE: _written,
    TaskKind.RERANK: lambda output: output.value,
    TaskKind.CAPTION: _written,
    TaskKind.TRANSCRIBE: _written,
}
