"""Examples: what is asked of a model, and what would be right, by kind. All are looked at first."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmos.abi.evals import DataFormat, EvalKind, EvalSpec, format_of
from llmos.errors import InvalidRequest
from llmos.programs.evaluate.reading import Values, first_fault, read_values
from llmos.programs.metrics.entities import Entity, entities_of, strict_entities_of
from llmos.programs.metrics.words import has_no_words

MAX_SLICES = 64
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Example:
    """`number` is its place in the file; `asked` what the model sees; `right` what would be right,
    as the kind has it; `slices` its values of the columns that scores are told apart by."""

    number: int
    asked: Mapping[str, Any]
    right: Any
    slices: Mapping[str, str]


def read_examples(
    spec: EvalSpec, path: Path, window_bytes: int = 4096, *, has_corpus: bool = False
) -> list[Example]:
    """`has_corpus`: queries have no documents of their own. Raises InvalidRequest for a file, a
    column or an example that is not what it should be, and where there are none."""
    form = spec.format or format_of(path.name, spec.kind) or DataFormat.JSONL
    build = _search if has_corpus else _BUILD[spec.kind]
    found = [
        Example(number, *build(spec, values, number), _slices(spec, values, number))
        for number, values in enumerate(read_values(path, form, window_bytes))
    ]
    if not found:
        raise InvalidRequest("the data has no examples", param="data")
    if spec.limit is not None and spec.limit < len(found):
        chosen = random.Random(spec.seed).sample(range(len(found)), spec.limit)
        found = [found[number] for number in sorted(chosen)]
    _check_slices(spec, found)
    if spec.kind is EvalKind.CLASSIFY:
        _check_labels(spec, found)
    return found


Built = tuple[Mapping[str, Any], Any]


def _slices(spec: EvalSpec, values: Values, number: int) -> dict[str, str]:
    missing = next((name for name in spec.slices if name not in values), None)
    if missing is not None:
        raise first_fault(values, "slices", missing, number)
    return {name: str(values[name]) for name in spec.slices}


def _check_slices(spec: EvalSpec, found: Sequence[Example]) -> None:
    for name in spec.slices:
        if len({example.slices[name] for example in found}) > MAX_SLICES:
            text = f"column {name!r} has over {MAX_SLICES} values: no slices are made of it"
            raise InvalidRequest(text, param="slices")


def _check_labels(spec: EvalSpec, found: Sequence[Example]) -> None:
    there = dict.fromkeys(example.right for example in found)
    if spec.labels:
        strange = next((label for label in there if label not in spec.labels), None)
        if strange is not None:
            near = get_close_matches(strange, spec.labels, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            text = f"the data has the label {strange[:64]!r}, which is none of `labels`{hint}"
            raise InvalidRequest(text, param="labels")
    elif len(there) == 1:
        only = next(iter(there))
        text = f"every example is {only[:64]!r}: name all `labels`, or give other data"
        raise InvalidRequest(text, param="data")


# values


def _value(spec: EvalSpec, values: Values, name: str, number: int, *others: str) -> Any:
    """By the column that the spec maps the name to, or of this name or one of `others`."""
    column = spec.columns.get(name) or next((n for n in (name, *others) if n in values), name)
    if values.get(column) is None:
        raise first_fault(values, name, column, number)
    return values[column]


def _text(spec: EvalSpec, values: Values, name: str, number: int, *others: str) -> str:
    value = _value(spec, values, name, number, *others)
    if isinstance(value, dict | list):
        text = f"example {number + 1}: {name!r} is no text"
        raise InvalidRequest(text, param=f"columns.{name}")
    text = str(value)
    if not text.strip():
        raise first_fault({name: ""}, name, name, number)
    return text


def _texts(spec: EvalSpec, values: Values, name: str, number: int, *others: str) -> list[str]:
    value = _value(spec, values, name, number, *others)
    if isinstance(value, dict):  # as Hugging Face stores SQuAD
        value = value.get("text", [])
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _only(spec: EvalSpec, values: Values, number: int, right: str) -> str:
    """The text; where an example has but one column besides what is right, that."""
    others = [name for name in values if name != spec.columns.get(right, right)]
    if "text" not in spec.columns and "text" not in values and len(others) == 1:
        return _text(spec, {"text": values[others[0]]}, "text", number)
    return _text(spec, values, "text", number)


# kinds


def _classify(spec: EvalSpec, values: Values, number: int) -> Built:
    label = _text(spec, values, "label", number)
    return {**values, "text": _only(spec, values, number, "label")}, label


def _ner(spec: EvalSpec, values: Values, number: int) -> Built:
    """Entities by characters, whatever the model's tokens are."""
    tokens = _value(spec, values, "tokens", number)
    tags = _value(spec, values, "tags", number, "ner_tags", "labels")
    if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags):
        text = f"example {number + 1}: tokens and tags are lists of one length"
        raise InvalidRequest(text, param="columns.tags")
    glue = "" if all(len(t) == 1 for t in tokens) and any(map(has_no_words, tokens)) else " "
    starts, at = [], 0
    for token in tokens:
        starts.append(at)
        at += len(token) + len(glue)
    read = strict_entities_of if spec.strict else entities_of
    found = {
        Entity(one.type, starts[one.start], starts[one.end - 1] + len(tokens[one.end - 1]))
        for one in read(list(map(str, tags)))
    }
    return {"text": glue.join(tokens)}, found


def _qa(spec: EvalSpec, values: Values, number: int) -> Built:
    asked = {
        **values,
        "question": _text(spec, values, "question", number),
        "context": _text(spec, values, "context", number),
    }
    return asked, _texts(spec, values, "answers", number, "answer")


def _generate(spec: EvalSpec, values: Values, number: int) -> Built:
    right = _texts(spec, values, "reference", number, "references", "target", "summary")
    if not right:
        raise first_fault({"reference": ""}, "reference", "reference", number)
    return {**values, "text": _only(spec, values, number, "reference")}, right


def _perplexity(spec: EvalSpec, values: Values, number: int) -> Built:
    return {"text": _only(spec, values, number, "")}, None


def _choice(spec: EvalSpec, values: Values, number: int) -> Built:
    """`answer` is a place from 0, a letter, or the text of a choice."""
    choices = _texts(spec, values, "choices", number, "options")
    answer = _value(spec, values, "answer", number, "label")
    where = f"example {number + 1}: "
    if not 2 <= len(choices) <= len(LETTERS):
        text = f"{where}`choices` are 2 to {len(LETTERS)} texts"
        raise InvalidRequest(text, param="columns.choices")
    place = _place(answer, choices)
    if place is None:
        text = f"{where}the answer {str(answer)[:64]!r} is none of its choices"
        raise InvalidRequest(text, param="columns.answer")
    question = _text(spec, values, "question", number, "text")
    return {**values, "question": question, "choices": choices}, place


def _place(answer: Any, choices: Sequence[str]) -> int | None:
    if isinstance(answer, str):
        if answer in choices:
            return choices.index(answer)
        if len(answer) == 1 and answer.upper() in LETTERS:
            answer = LETTERS.index(answer.upper())
        elif answer.isdigit():
            answer = int(answer)
    is_place = type(answer) is int and 0 <= answer < len(choices)
    return answer if is_place else None


def _search(spec: EvalSpec, values: Values, number: int) -> Built:
    """`relevant`: names of documents of the corpus, or their gains by name."""
    gains = _gains(spec, values, number, "names of documents, or their gains by name")
    return {"query": _text(spec, values, "query", number, "text")}, gains


def _gains(spec: EvalSpec, values: Values, number: int, what: str) -> dict[str, float]:
    """By name. Raises InvalidRequest for a name that is neither text nor an integer, for a gain
    that is negative or not finite."""
    found = _value(spec, values, "relevant", number, "labels")
    if not isinstance(found, dict):
        found = [(one, 1) for one in (found if isinstance(found, list) else [found])]
    gains = {}
    for name, given in found.items() if isinstance(found, dict) else found:
        try:
            gain = float(given)
        except (TypeError, ValueError):
            gain = math.nan
        is_name = isinstance(name, str | int) and not isinstance(name, bool)
        if not is_name or not 0 <= gain < math.inf:
            told = f"the gain of {name!r:.64} is {given!r:.64}" if is_name else f"{name!r:.64}"
            text = f"example {number + 1}: `relevant` are {what}, 0 at least: there is {told}"
            raise InvalidRequest(text, param="columns.relevant")
        gains[str(name)] = gain
    return gains


def _retrieve(spec: EvalSpec, values: Values, number: int) -> Built:
    """`relevant`: the places of documents, or their gains by place."""
    documents = _texts(spec, values, "documents", number)
    what = "places of documents, or their gains by place"
    found = _gains(spec, values, number, what)
    try:
        gains = {str(int(place)): gain for place, gain in found.items()}
    except ValueError:
        text = f"example {number + 1}: `relevant` are {what}"
        raise InvalidRequest(text, param="columns.relevant") from None
    if any(not 0 <= int(place) < len(documents) for place in gains):
        text = f"example {number + 1}: `relevant` has the place of no document"
        raise InvalidRequest(text, param="columns.relevant")
    return {"query": _text(spec, values, "query", number), "documents": documents}, gains


def _judge(spec: EvalSpec, values: Values, number: int) -> Built:
    """What is compared with: the other model's answer, or a column's."""
    right = None if spec.against else _text(spec, values, "reference", number)
    return {**values, "text": _text(spec, values, "text", number, "question", "prompt")}, right


_BUILD: dict[EvalKind, Callable[[EvalSpec, Values, int], Built]] = {
    EvalKind.CLASSIFY: _classify,
    EvalKind.NER: _ner,
    EvalKind.QA: _qa,
    EvalKind.GENERATE: _generate,
    EvalKind.SUMMARIZE: _generate,
    EvalKind.TRANSLATE: _generate,
    EvalKind.PERPLEXITY: _perplexity,
    EvalKind.CHOICE: _choice,
    EvalKind.RETRIEVE: _retrieve,
    EvalKind.JUDGE: _judge,
}


def slices_of(examples: Sequence[Example]) -> Iterator[tuple[str, str, list[bool]]]:
    """Column, value, and which examples have it."""
    for name in examples[0].slices:
        for value in sorted({example.slices[name] for example in examples}):
            yield name, value, [example.slices[name] == value for example in examples]
