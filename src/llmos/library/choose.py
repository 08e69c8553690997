"""Which model a task should have, of those that are registered. Pure; always with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llmos.abi.inference import GENERATE
from llmos.abi.registry import ModelVersion
from llmos.abi.tasks import TaskKind
from llmos.errors import InvalidRequest, ModelNotFound
from llmos.library.catalogue import Entry, entry_of, speaks

NEWEST = "latest"
"""The alias of the newest version of a name."""

WORK: dict[TaskKind, tuple[str, ...]] = {
    TaskKind.GENERATE: (GENERATE,),
    TaskKind.SUMMARIZE: ("summarization", GENERATE),
    TaskKind.TRANSLATE: ("translation", GENERATE),
    TaskKind.CLASSIFY: ("text-classification", GENERATE),
    TaskKind.EXTRACT: ("token-classification", GENERATE),
    TaskKind.QA: ("question-answering", GENERATE),
    TaskKind.EMBED: ("embeddings",),
    TaskKind.RERANK: ("rerank",),
    TaskKind.CAPTION: ("image-to-text",),
    TaskKind.TRANSCRIBE: ("automatic-speech-recognition",),
}
"""Kinds of work that do a task, the one made for it first."""

LABELLED: tuple[str, ...] = ("zero-shot-classification", GENERATE)
"""Of classify, where the labels are the task's and not the model's."""


class Choice(NamedTuple):
    """`work` is what the model is asked for."""

    version: ModelVersion
    work: str
    reason: str


def works_of(kind: TaskKind, *, has_labels: bool, has_prompt: bool) -> tuple[str, ...]:
    """What may do it. A prompt, or a schema, is for a model that generates."""
    if has_prompt:
        return tuple(work for work in WORK[kind] if work == GENERATE)
    if kind is TaskKind.CLASSIFY and has_labels:
        return LABELLED
    return WORK[kind]


def work_of(version: ModelVersion, works: Sequence[str], kind: TaskKind) -> str:
    """How this model does a task. Raises InvalidRequest where it cannot."""
    able = version.kinds
    for work in works:
        if work in able:
            return work
    wanted = " or ".join(works) or "no model"
    text = f"{version.ref} is for {', '.join(able)}; this {kind} task is one for {wanted}"
    raise InvalidRequest(text, param="model")


def choose(
    models: Sequence[ModelVersion], kind: TaskKind, works: Sequence[str], language: str | None
) -> Choice:
    """The best of the newest versions; test doubles never. Raises ModelNotFound."""
    newest = [m for m in models if m.num_parameters and NEWEST in m.aliases] or [
        m for m in models if m.num_parameters
    ]
    ranked = []
    for version in newest:
        able = version.kinds
        work = next((work for work in works if work in able), None)
        if work is None:
            continue
        entry = entry_of(version.name, version.source)
        ranked.append((_rank(version, entry, works.index(work), language), work, version, entry))
    if not ranked:
        raise ModelNotFound(
            f"no model here does {' or '.join(works) or kind}: pull one, or name it; "
            f"`llmos models search --task {kind}` lists some",
            param="model",
        )
    ranked.sort(key=lambda one: (one[0], one[2].ref))
    _, work, version, entry = ranked[0]
    return Choice(version, work, _reason(work, version, entry, language, len(ranked)))


def _rank(
    version: ModelVersion, entry: Entry | None, place: int, language: str | None
) -> tuple[int, int, float, int]:
    """Smaller is better: made for the task, in the language, measured quality, size."""
    return (
        place,
        0 if language is None else _strangeness(entry, language),
        -max((m.value for m in entry.measured), default=0.0) if entry else 0.0,
        -version.num_parameters,
    )


def _strangeness(entry: Entry | None, language: str) -> int:
    if entry is None:
        return 1  # nobody knows
    return 0 if speaks(entry, language) else 2


def _reason(
    work: str, version: ModelVersion, entry: Entry | None, language: str | None, num: int
) -> str:
    parts = [f"for {work}, chosen of {num} that could" if num > 1 else f"the one for {work}"]
    if language is not None and entry is not None:
        parts.append(f"{'speaks' if speaks(entry, language) else 'does not speak'} {language}")
    if entry is not None and entry.measured:
        best = max(entry.measured, key=lambda measured: measured.value)
        parts.append(f"{best.metric} {best.value:g} on {best.texts}")
    parts.append(f"{version.num_parameters / 1e6:,.1f} M parameters")
    return ", ".join(parts)
