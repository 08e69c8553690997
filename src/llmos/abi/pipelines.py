"""A pipeline: steps declared once, each a child job, a gate or a promotion, in the order they need.

It is the job of the program `pipeline`: `inputs["pipeline"]` is a `PipelineSpec`. What a step came
to is used by others as `${step.path.of.outputs}`, which is also what makes one need the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from llmos.errors import InvalidRequest

PIPELINE = "pipeline"
"""The program, and the key of its inputs."""

MAX_STEPS = 64
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


class Promotion(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Let `alias` be the model, a reference."""

    model: str
    alias: str = "production"


class Step(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One of: a job (`program` with `inputs`, `files`, `models` ...), a `gate` (the step whose
    verdict must be good for anything after it to happen), a promotion. `needs` are steps besides
    those that are referred to."""

    program: str = ""
    inputs: dict[str, Any] = {}
    files: dict[str, str] = {}
    models: dict[str, str] = {}
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    gate: str = ""
    promote: Promotion | None = None
    needs: list[str] = []


class PipelineSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Steps by name, in the order in which they were written."""

    steps: dict[str, Step]
    name: str = ""


def read_pipeline(given: Any) -> PipelineSpec:
    """Raises InvalidRequest naming the step."""
    try:
        spec = msgspec.convert(given, PipelineSpec)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        param = where.rstrip("`") or PIPELINE
        raise InvalidRequest(f"pipeline: {what} ({param})", param=param) from None
    if not 0 < len(spec.steps) <= MAX_STEPS:
        raise InvalidRequest(f"a pipeline has 1 to {MAX_STEPS} steps", param="steps")
    for name, step in spec.steps.items():
        _check_step(spec, name, step)
    _check_order(spec)
    return spec


def _check_step(spec: PipelineSpec, name: str, step: Step) -> None:
    where = f"steps.{name}"
    if not _NAME.fullmatch(name):
        text = f"step {name[:64]!r}: a letter, then small letters, digits, _ and -"
        raise InvalidRequest(text, param="steps")
    kinds = [bool(step.program), bool(step.gate), step.promote is not None]
    if sum(kinds) != 1:
        text = f"step {name!r} is one of `program`, `gate` and `promote`"
        raise InvalidRequest(text, param=where)
    if not step.program and (step.inputs or step.files or step.models):
        raise InvalidRequest(f"step {name!r}: inputs and files are a program's", param=where)
    for other in needs_of(step):
        if other not in spec.steps:
            raise InvalidRequest(f"step {name!r} needs {other[:64]!r}, which is none", param=where)


def _check_order(spec: PipelineSpec) -> None:
    """Raises InvalidRequest where steps need each other."""
    left = {name: needs_of(step) for name, step in spec.steps.items()}
    while left:
        ready = [name for name, needs in left.items() if not needs & left.keys()]
        if not ready:
            names = ", ".join(map(repr, left))
            raise InvalidRequest(f"steps {names} need each other", param="steps")
        for name in ready:
            del left[name]


def needs_of(step: Step) -> set[str]:
    """Of a step, the names of all that must be done before."""
    found = {*step.needs}
    if step.gate:
        found.add(step.gate)
    parts = [step.inputs, step.files, step.models, msgspec.to_builtins(step.promote)]
    return found | {path.partition(".")[0] for part in parts for path in _references(part)}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def filled(value: Any, outputs: dict[str, Any]) -> Any:
    """With every reference replaced: one that is a whole text by the value itself, one within a
    text by what it reads as. Raises InvalidRequest for what no step has come to."""
    if isinstance(value, dict):
        return {name: filled(one, outputs) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, outputs) for one in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _found(whole[1], outputs)
    return _REFERENCE.sub(lambda match: str(_found(match[1], outputs)), value)


def _found(path: str, outputs: dict[str, Any]) -> Any:
    value: Any = outputs
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            there = ", ".join(value) if isinstance(value, dict) else "nothing below"
            text = f"${{{path}}}: there is no {part!r}, only {there}"
            raise InvalidRequest(text, param=path)
        value = value[part]
    return value
