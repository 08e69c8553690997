"""How examples are asked of a model, by kind: as tasks are, and where tasks have no word, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmos.abi.evals import EvalKind, EvalSpec
from llmos.abi.events import ItemOutput
from llmos.abi.inference import GENERATE, ItemsPrompt, Options, Sampling, TextPrompt
from llmos.abi.program import Answer, Generate
from llmos.abi.registry import ModelVersion
from llmos.abi.tasks import TaskKind, TaskSpec
from llmos.errors import AnswerRejected, InvalidRequest, LLMOSError, from_info
from llmos.library.choose import work_of, works_of
from llmos.programs.evaluate.choices import ByLetter, ByLogprobs
from llmos.programs.evaluate.likely import Likely
from llmos.programs.evaluate.vectors import EMBED, check_vector, of_length_1
from llmos.programs.task.items import Itemwise
from llmos.programs.task.prompting import Prompting
from llmos.programs.task.rounds import Work

MAX_TOKENS = 256

TASKS: dict[EvalKind, TaskKind] = {
    EvalKind.CLASSIFY: TaskKind.CLASSIFY,
    EvalKind.NER: TaskKind.EXTRACT,
    EvalKind.QA: TaskKind.QA,
    EvalKind.GENERATE: TaskKind.GENERATE,
    EvalKind.SUMMARIZE: TaskKind.SUMMARIZE,
    EvalKind.TRANSLATE: TaskKind.TRANSLATE,
    EvalKind.JUDGE: TaskKind.GENERATE,
    EvalKind.RETRIEVE: TaskKind.RERANK,
}
"""Kinds that are asked as a task."""


def work_for(spec: EvalSpec, version: ModelVersion, labels: Sequence[str]) -> Work:
    """Raises InvalidRequest for a model that does not do the kind."""
    if spec.kind is EvalKind.PERPLEXITY:
        _must_generate(spec, version)
        return Likely(version.ref)
    if spec.kind is EvalKind.CHOICE:
        _must_generate(spec, version)
        by = ByLetter if spec.by == "letter" else ByLogprobs
        return by(spec, version)
    if spec.kind is EvalKind.RETRIEVE and EMBED in version.kinds:
        return Embedded(version.ref, spec)
    if spec.query_prefix or spec.document_prefix:
        able = ", ".join(version.kinds)
        text = f"{version.ref} is for {able}; prefixes are for models that make vectors"
        raise InvalidRequest(text, param="query_prefix")
    return _task(spec, version, list(labels))


def _must_generate(spec: EvalSpec, version: ModelVersion) -> None:
    if GENERATE not in version.kinds:
        able = ", ".join(version.kinds)
        text = f"{version.ref} is for {able}; {spec.kind} needs a model that generates"
        raise InvalidRequest(text, param="model")


def _task(spec: EvalSpec, version: ModelVersion, labels: list[str]) -> Work:
    kind = TASKS[spec.kind]
    works = works_of(kind, has_labels=False, has_prompt=bool(spec.prompt))
    if kind is TaskKind.CLASSIFY:
        works = (*works, "zero-shot-classification")
    work = work_of(version, works, kind)
    is_zero_shot = work == "zero-shot-classification"
    prompted = work == GENERATE
    task = TaskSpec(
        kind=kind,
        model=version.ref,
        work=work,
        is_chat=version.has_chat_template,
        prompt=spec.prompt,
        system=spec.system,
        labels=labels if prompted or is_zero_shot else [],
        language=spec.language if kind is TaskKind.TRANSLATE else "",
        sampling=Sampling(temperature=0.0, max_tokens=spec.max_tokens or MAX_TOKENS),
        params={"top_k": None, **spec.params} if work == "text-classification" else spec.params,
    )
    if prompted:
        return Prompting(task)
    return Itemwise(task, "", _distribution if kind is TaskKind.CLASSIFY else None)


def _distribution(output: ItemOutput) -> dict[str, Any]:
    """Every label with its score, the best first."""
    scores = {str(one["label"]): float(one["score"]) for one in output.value}
    return {"label": max(scores, key=lambda label: scores[label]), "scores": scores}


class Embedded:
    """Documents in the order of their vectors' likeness to the query's. A row is one call."""

    needs = ["query", "documents"]  # noqa: RUF012 - of a Protocol with properties
    pack = 1

    def __init__(self, ref: str, spec: EvalSpec) -> None:
        self._ref = ref
        self._params = dict(spec.params)
        self._query_prefix = spec.query_prefix
        self._document_prefix = spec.document_prefix

    def piece(self, values: Mapping[str, Any]) -> list[str]:
        documents = (self._document_prefix + one for one in values["documents"])
        return [self._query_prefix + values["query"], *documents]

    def request(self, pieces: Sequence[Any], options: Options) -> Generate:
        prompt = ItemsPrompt(EMBED, list(pieces[0]), self._params)
        return Generate(self._ref, prompt, Sampling(), options, EMBED)

    def loosen(self) -> None:
        """It sends none."""

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """Places of documents with their cosines."""
        outputs = sorted(answer.outputs, key=lambda output: output.index)
        wrong: LLMOSError | None = next(
            (from_info(output.error) for output in outputs if output.error is not None), None
        )
        if wrong is not None:
            return [wrong]
        try:
            vectors = [check_vector(output.data) for output in outputs]
        except AnswerRejected as error:
            return [error]
        if len({len(vector) for vector in vectors}) != 1:
            return [AnswerRejected("the model gave no vectors, or some of several sizes")]
        return [_ordered(vectors)]


def _ordered(vectors: Sequence[Any]) -> list[dict[str, Any]]:
    import numpy as np

    rows = of_length_1(np.stack(vectors))
    scores = rows[1:] @ rows[0]
    order = np.argsort(-scores, kind="stable")
    return [{"index": int(n), "score": round(float(scores[n]), 6)} for n in order]


def plain(ref: str, text: str, sampling: Sampling, options: Options) -> Generate:
    """A text as it is, without a template."""
    return Generate(ref, TextPrompt(text), sampling, options, "text")
