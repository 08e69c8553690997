"""The fields of a recipe, for people: made from the fields themselves."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from llmos.programs.train.recipe import Method, Objective, Recipe


class Row(NamedTuple):
    """One field, by its path."""

    path: str
    kind: str
    default: str
    about: str


def rows(struct: type[msgspec.Struct] = Recipe, prefix: str = "") -> Iterator[Row]:
    """Every field, sections opened, in the order they are written in."""
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        kind, about = _split(hints[field.name])
        path = f"{prefix}{field.name}"
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from rows(kind, f"{path}.")
        else:
            yield Row(path, _spell(hints[field.name]), _default(field), about)


def _split(hint: Any) -> tuple[Any, str]:
    """What is annotated, and its description."""
    about = ""
    while get_origin(hint) is Annotated:
        hint, *metas = get_args(hint)
        for meta in metas:
            about = about or getattr(meta, "description", None) or ""
    return hint, about


def _spell(hint: Any) -> str:
    """A type, as people say it."""
    bounds = ""
    while get_origin(hint) is Annotated:
        hint, *metas = get_args(hint)
        bounds += "".join(_bounds(meta) for meta in metas)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(part) for part in get_args(hint) if part is not type(None))
    if origin is Literal:
        return ", ".join(map(str, get_args(hint)))
    if origin is list:
        return "list of texts"
    if origin is dict:
        return "label: number, ..."
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ", ".join(member.value for member in hint)
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(hint, str(hint)) + bounds


def _bounds(meta: Any) -> str:
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    said = [
        f" {sign} {value}"
        for name, sign in signs
        if (value := getattr(meta, name, None)) is not None
    ]
    return ",".join(said)


def _default(field: Any) -> str:
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, enum.Enum) else value)


OBJECTIVES: dict[Objective, str] = {
    Objective.CLASSIFY: "one label for a text, or for a pair of texts",
    Objective.TAG: "a label for every word: `text` is a list of words or words between spaces, "
    "`label` their tags",
    Objective.QA: "the piece of `text` that answers `pair`; `label` is that piece, or "
    "`{text, start}`",
    Objective.REGRESS: "a number for a text",
    Objective.MASKED: "words that were hidden (pre-training of an encoder)",
    Objective.CAUSAL: "the next token (pre-training of a decoder)",
    Objective.DENOISE: "spans that were hidden (pre-training of a T5)",
    Objective.SEQ2SEQ: "`target` from `text`: translation, summaries",
    Objective.EMBED: "vectors: `text` near its `pair`, far from others'",
    Objective.IMAGES: "one label for a picture: a folder of folders named by label",
    Objective.SOUNDS: "one label for a sound: a folder of folders named by label",
    Objective.SFT: "`target` after `text`, or `messages`, by a language model",
    Objective.DPO: "`chosen` rather than `rejected` after `text`",
    Objective.KTO: "`target` after `text`, good where `label` is true",
    Objective.REWARD: "a score: `chosen` above `rejected`",
    Objective.GRPO: "answers to `text` that score well",
}
METHODS: dict[Method, str] = {
    Method.FULL: "all of them",
    Method.HEAD: "only what was added on top: a linear probe",
    Method.LORA: "low-rank additions (Hu et al., 2021)",
    Method.DORA: "LoRA with magnitudes apart (Liu et al., 2024)",
    Method.QLORA: "LoRA over weights in 4 bits (Dettmers et al., 2023); needs bitsandbytes",
    Method.ADALORA: "LoRA whose ranks move to where they help (Zhang et al., 2023)",
    Method.IA3: "scales of keys, values and inner layers (Liu et al., 2022)",
    Method.PREFIX: "keys and values before every layer's (Li and Liang, 2021)",
    Method.PROMPT: "vectors before the text's (Lester et al., 2021)",
    Method.P_TUNING: "the same, made by a small network (Liu et al., 2021)",
    Method.BOTTLENECK: "two small layers after each (Houlsby et al., 2019)",
}


def as_text(width: int = 100) -> str:
    """For a terminal."""
    import textwrap

    lines = ["Fields of a recipe (YAML), also as `--set FIELD=VALUE`:", ""]
    for row in rows():
        default = "" if row.default in ("-", "required") else f" [{row.default}]"
        mark = " (required)" if row.default == "required" else ""
        lines.append(f"  {row.path}: {row.kind}{default}{mark}")
        lines += textwrap.wrap(row.about, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += ["", "What is learned (`objective`):"]
    lines += [f"  {name:<10} {about}" for name, about in OBJECTIVES.items()]
    lines += ["", "Which weights are learned (`method`):"]
    lines += [f"  {name:<10} {about}" for name, about in METHODS.items()]
    return "\n".join(lines)


def as_markdown() -> str:
    """For the pages."""
    lines = ["| field | what | default | about |", "|---|---|---|---|"]
    lines += [
        f"| `{row.path}` | {row.kind} | {row.default} | {row.about} |".replace("<", "&lt;")
        for row in rows()
    ]
    lines += ["", "| `objective` | what is learned |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in OBJECTIVES.items()]
    lines += ["", "| `method` | which weights are learned |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in METHODS.items()]
    return "\n".join(lines)
