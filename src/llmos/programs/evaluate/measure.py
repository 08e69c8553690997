"""From outcomes to scores, by kind; each example's own part is kept for whoever looks closer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmos.abi.evals import EvalKind, EvalSpec
from llmos.errors import InvalidRequest, PluginError
from llmos.programs.evaluate.choices import choice_logprob
from llmos.programs.evaluate.examples import Example
from llmos.programs.metrics.answers import answer_scores
from llmos.programs.metrics.answers import match as match_answer
from llmos.programs.metrics.classification import (
    Classified,
    class_table,
    classified,
    label_scores,
)
from llmos.programs.metrics.entities import Entity, Found, entity_scores, match, type_table
from llmos.programs.metrics.likelihood import Likelihood, likelihood_scores
from llmos.programs.metrics.probabilities import (
    precision_recall_curve,
    probability_scores,
    reliability,
    roc_curve,
)
from llmos.programs.metrics.ranking import (
    LEADING,
    Ranked,
    ranked_of,
    ranking_of,
    ranking_scores,
)
from llmos.programs.metrics.rouge import NAMES as ROUGE
from llmos.programs.metrics.rouge import rouge
from llmos.programs.metrics.score import Floats, Score, mean_of
from llmos.programs.metrics.translation import translation_scores

NONE = "(none)"
"""What is said by an answer that is none of the labels."""

MAIN: dict[EvalKind, str] = {
    EvalKind.CLASSIFY: "accuracy",
    EvalKind.NER: "f1_micro",
    EvalKind.QA: "f1",
    EvalKind.GENERATE: "rougeL",
    EvalKind.SUMMARIZE: "rougeL",
    EvalKind.TRANSLATE: "bleu",
    EvalKind.PERPLEXITY: "perplexity",
    EvalKind.CHOICE: "accuracy",
    EvalKind.RETRIEVE: "ndcg@10",
    EvalKind.JUDGE: "win_rate",
}
"""The score that counts most, where none is named."""

CURVE_CLASSES = 10
SUM_TOLERANCE = 0.02

Answers = Sequence[Any]
"""One for each example, None where the answer was none."""


@dataclass(slots=True)
class Measured:
    """Of one model. `own`: each example's part, for people; `confusion` rows are what is."""

    scores: list[Score]
    own: list[dict[str, Any]]
    classes: list[dict[str, Any]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(spec: EvalSpec, examples: Sequence[Example], each: Sequence[Answers]) -> list[Measured]:
    """Of each model the answers. All are scored alike: over the same classes, types, examples."""
    return _MEASURE[spec.kind](spec, examples, each)


Each = Sequence[Answers]


# classify


def _classify(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    gold = [example.right for example in examples]
    said = [[_label(spec, answer) for answer in answers] for answers in each]
    for labels in said:
        _check_overlap(spec, gold, labels)
    known = dict.fromkeys(spec.labels)
    known.update(dict.fromkeys(sorted({*gold, *(one for row in said for one in row)} - {NONE})))
    if any(NONE in labels for labels in said):
        known[NONE] = None
    made = []
    for answers, labels in zip(each, said, strict=True):
        found = classified(gold, labels, list(known))
        pairs = zip(labels, gold, strict=True)
        own = [{"said": label, "right": label == true} for label, true in pairs]
        of = Measured([*label_scores(found)], own, class_table(found), found.labels)
        of.confusion = found.confusion_CC.tolist()
        _add_probabilities(spec, of, found, answers)
        made.append(of)
    return made


def _label(spec: EvalSpec, answer: Any) -> str:
    if answer is None:
        return NONE
    label = str(answer["label"])
    return spec.rename.get(label, label)


def _check_overlap(spec: EvalSpec, gold: Sequence[str], said: Sequence[str]) -> None:
    """A model that never says a label of the data most likely has other names for them."""
    told = {*said} - {NONE}
    if told and not told & {*gold, *spec.labels}:
        text = (
            f"the model says {_few(told)}, the data have {_few({*gold})}: say which is which in "
            "`rename`, the model's label first"
        )
        raise InvalidRequest(text, param="rename")


def _few(labels: set[str]) -> str:
    shown = sorted(labels)[:6]
    return ", ".join(map(repr, shown)) + (" ..." if len(labels) > len(shown) else "")


def _add_probabilities(spec: EvalSpec, of: Measured, found: Classified, answers: Answers) -> None:
    """Where the model gave every label a probability, and these make 1."""
    if not all(answer is not None and answer.get("scores") for answer in answers):
        return
    index = {label: number for number, label in enumerate(found.labels)}
    probs = np.zeros((len(answers), len(found.labels)))
    for row, answer in enumerate(answers):
        for label, score in answer["scores"].items():
            place = index.get(spec.rename.get(label, label))
            if place is not None:
                probs[row, place] += score
    sums = probs.sum(1)
    if np.any(np.abs(sums - 1) > SUM_TOLERANCE):
        of.notes.append("the labels' scores do not make 1: no ROC-AUC, no calibration")
        return
    probs /= sums[:, None]
    of.scores += probability_scores(found.gold_N, probs)
    for own, surest in zip(of.own, probs.max(1).tolist(), strict=True):
        own["probability"] = round(surest, 6)
    _add_curves(of, found, probs)


def _add_curves(of: Measured, found: Classified, probs: Floats) -> None:
    counts = np.bincount(found.gold_N, minlength=len(found.labels))
    columns = [1] if len(found.labels) == 2 else np.argsort(-counts)[:CURVE_CLASSES].tolist()
    curves: dict[str, list[dict[str, Any]]] = {"roc": [], "precision_recall": []}
    for place in columns:
        is_it = (found.gold_N == place).astype(np.int64)
        for name, make in (("roc", roc_curve), ("precision_recall", precision_recall_curve)):
            if points := make(is_it, probs[:, place]):
                rounded = [(round(x, 5), round(y, 5)) for x, y in points]
                curves[name].append({"label": found.labels[place], "points": rounded})
    bins = [(round(x, 5), round(y, 5), n) for x, y, n in reliability(found.gold_N, probs)]
    curves["calibration"] = [{"label": "", "points": bins}]
    of.curves = curves


# entities


def _ner(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    gold = [example.right for example in examples]
    said = [
        [_entities(spec, one, example) for one, example in zip(answers, examples, strict=True)]
        for answers in each
    ]
    types = {entity.type for row in said for one in row for entity in one}
    found = [match(gold, row, types) for row in said]
    for row, of in zip(said, found, strict=True):
        if any(row) and not set(of.types) & {e.type for one in gold for e in one} & {
            e.type for one in row for e in one
        }:
            _check_overlap(spec, [e.type for one in gold for e in one], sorted(types))
    return [
        Measured([*entity_scores(of)], _own_entities(of, gold, row), type_table(of))
        for of, row in zip(found, said, strict=True)
    ]


def _entities(spec: EvalSpec, answer: Any, example: Example) -> set[Entity]:
    """Of a model that finds places, or of one that only quotes them: from left to right."""
    found: set[Entity] = set()
    text = example.asked["text"]
    nexts: dict[str, int] = {}
    for one in answer or ():
        kind = str(one.get("label", one.get("type", "")))
        kind = spec.rename.get(kind, kind)
        quoted = str(one.get("text", ""))
        start = one.get("start")
        if start is None:
            start = text.find(quoted, nexts.get(quoted, 0))
            if start < 0:
                start = len(text) + len(found)  # nowhere: an entity that is none
            nexts[quoted] = start + 1
            end = start + len(quoted)
        else:
            end = one["end"]
        found.add(Entity(kind, int(start), int(end)))
    return found


def _own_entities(
    of: Found, gold: Sequence[set[Entity]], said: Sequence[set[Entity]]
) -> list[dict[str, Any]]:
    return [
        {"said": sorted(map(list, one)), "right": one == true}
        for one, true in zip(said, gold, strict=True)
    ]


# texts


def _qa(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    made = []
    for answers in each:
        texts = [_text(answer, "answer") for answer in answers]
        found = [match_answer(text, e.right) for text, e in zip(texts, examples, strict=True)]
        own = [
            {"said": text, "exact": one.exact, "f1": round(one.f1, 6)}
            for text, one in zip(texts, found, strict=True)
        ]
        made.append(Measured([*answer_scores(found)], own))
    return made


def _text(answer: Any, name: str = "text") -> str:
    if answer is None:
        return ""
    return str(answer.get(name, "")) if isinstance(answer, dict) else str(answer)


def _generate(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    right = [example.right for example in examples]
    return [_of_texts(spec, [_text(answer) for answer in answers], right) for answers in each]


def _of_texts(spec: EvalSpec, said: list[str], right: list[list[str]]) -> Measured:
    tables = [rouge(text, refs) for text, refs in zip(said, right, strict=True)]
    pairs = zip(said, right, strict=True)
    exact = [float(text.strip() in map(str.strip, refs)) for text, refs in pairs]
    scores: list[Score] = [mean_of(name, [table[name] for table in tables]) for name in ROUGE]
    scores.append(mean_of("exact_match", exact))
    notes = []
    try:
        scores += translation_scores(said, right, spec.language)
    except PluginError as error:
        if spec.kind is EvalKind.TRANSLATE:
            raise
        notes.append(error.message)
    own = [
        {"said": text, "rougeL": round(table["rougeL"], 6)}
        for text, table in zip(said, tables, strict=True)
    ]
    return Measured(scores, own, notes=notes)


def _perplexity(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    made = []
    for answers in each:
        found = [Likelihood(**answer) if answer else Likelihood(0.0, 0, 0, 0) for answer in answers]
        own = [{"said": None, **one._asdict()} for one in found]
        made.append(Measured([*likelihood_scores(found)], own))
    return made


# choices and ranks


def _choice(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    by = _by_letter if spec.by == "letter" else _by_logprobs
    return [by(examples, answers) for answers in each]


def _by_letter(examples: Sequence[Example], answers: Answers) -> Measured:
    right = [answer == e.right for answer, e in zip(answers, examples, strict=True)]
    own = [{"said": answer, "right": one} for answer, one in zip(answers, right, strict=True)]
    return Measured([mean_of("accuracy", right)], own)


def _by_logprobs(examples: Sequence[Example], answers: Answers) -> Measured:
    """The likeliest choice, and the one that is for each of its bytes."""
    own, plain, normal = [], [], []
    for example, told in zip(examples, answers, strict=True):
        choices = example.asked["choices"]
        sums = [choice_logprob(one, text) for one, text in zip(told, choices, strict=True)]
        best = max(range(len(sums)), key=lambda n: sums[n][0])
        best_of_bytes = max(range(len(sums)), key=lambda n: sums[n][0] / max(1, sums[n][1]))
        plain.append(best == example.right)
        normal.append(best_of_bytes == example.right)
        logprobs = [round(value, 5) for value, _ in sums]
        own.append({"said": best, "right": plain[-1], "logprobs": logprobs})
    return Measured([mean_of("accuracy", plain), mean_of("accuracy_per_byte", normal)], own)


def _retrieve(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    made = []
    for answers in each:
        found = [_ranked(answer, e) for answer, e in zip(answers, examples, strict=True)]
        scores = [ranking_of(one, e.right) for one, e in zip(found, examples, strict=True)]
        own = [
            {"said": one.leading, "mrr": _number(score["mrr"])}
            for one, score in zip(found, scores, strict=True)
        ]
        made.append(Measured([*ranking_scores(scores)], own))
    return made


def _ranked(answer: Any, example: Example) -> Ranked:
    """Of a corpus it is told already, of an example's own documents from their places."""
    if isinstance(answer, Ranked):
        return answer
    places = [one["index"] for one in answer or ()]
    return ranked_of(list(map(str, places)), example.right)._replace(leading=places[:LEADING])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _judge(spec: EvalSpec, examples: Sequence[Example], each: Each) -> list[Measured]:
    """Answers are pairs of the text and the verdict on it: (text, [verdict, ...])."""
    (answers,) = each
    points, agreed, own = [], [], []
    for text, verdicts in answers:
        values = {"win": 1.0, "tie": 0.5, "loss": 0.0}
        stays = len(set(verdicts)) == 1
        verdict = verdicts[0] if stays else "tie"
        points.append(values[verdict])
        agreed.append(stays)
        own.append({"said": text, "verdict": verdict, "verdicts": list(verdicts)})
    scores: list[Score] = [
        mean_of("win_rate", points),
        mean_of("wins", [p == 1 for p in points]),
        mean_of("ties", [p == 0.5 for p in points]),
        mean_of("losses", [p == 0 for p in points], higher_is_better=False),
        mean_of("verdicts_that_stay", agreed),
    ]
    return [Measured(scores, own)]


_MEASURE: Mapping[EvalKind, Callable[[EvalSpec, Sequence[Example], Each], list[Measured]]] = {
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
