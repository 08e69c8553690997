"""/v1/moderations, by a registered classifier: no list of words of ours judges anyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from llmos.abi.program import Generate
from llmos.errors import InvalidRequest
from llmos.shapes.answers import Answer
from llmos.shapes.embeddings import EmbeddingsLlmos, failed
from llmos.shapes.fields import ModelName, fault
from llmos.shapes.kinds import MAX_ITEMS, ItemsBody, Made, notes_of, read_items_body

KIND = "text-classification"

DEFAULT_MODEL = "moderation"
"""The name under which a classifier is registered to be asked where a body names none."""

HARMLESS = frozenset(
    {"clean", "harmless", "neutral", "non-toxic", "none", "normal", "not toxic", "ok", "safe"}
)
"""Names of classes (in lower case, `_` as a space or hyphen) that are no reason to flag a text."""

THRESHOLD = 0.5


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise fault("must be a text or a non-empty list of texts")
    found = []
    for i, part in enumerate(value):
        if isinstance(part, dict) and part.get("type") not in (None, "text"):
            raise fault("only texts are moderated", f"{i}.type", "unsupported")
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise fault("must be a text", str(i))
        found.append(text)
    return found


class ModerationsBody(ItemsBody):
    """Body of /v1/moderations."""

    model: ModelName = Field(default=DEFAULT_MODEL, description="A classifier's name or alias")
    input: Annotated[
        list[str],
        BeforeValidator(_texts, json_schema_input_type=str | list[str | dict[str, Any]]),
        Field(max_length=MAX_ITEMS),
    ] = Field(description="A text, or a list of them")

    def to_generate(self) -> Generate:
        """One inference of all texts, with the score of every class."""
        return self.wish(KIND, list(self.input), "moderations", {"top_k": None})


class ModerationResult(Answer):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class ModerationsAnswer(Answer):
    """Answer of /v1/moderations: the classifier's own classes, but for what is harmless."""

    id: str
    model: str
    results: list[ModerationResult]
    llmos: EmbeddingsLlmos


def read_moderations(body: Mapping[str, Any]) -> ModerationsBody:
    """Raises InvalidRequest and its kinds."""
    read: ModerationsBody = read_items_body(ModerationsBody, body)
    return read


def moderations_answer(made: Made) -> dict[str, Any]:
    """Raises the error of the first text that has one, InvalidRequest for other classifiers."""
    results = []
    for output in made.outputs:
        if output.error is not None:
            raise failed(output.error, f"input.{output.index}")
        results.append(_result(output.value, made.head.model))
    notes = notes_of(made.outputs)
    return {
        "id": made.head.request_id.replace("req_", "modr-", 1),
        "model": made.head.model,
        "results": results,
        "llmos": made.llmos | ({"notes": notes} if notes else {}),
    }


def _result(ranked: list[dict[str, Any]], model: str) -> dict[str, Any]:
    scores = {one["label"]: one["score"] for one in ranked}
    harmful = {label: score for label, score in scores.items() if not _is_harmless(label)}
    total = sum(scores.values())
    if len(harmful) == len(scores) > 1 and abs(total - 1.0) < 1e-3:
        raise InvalidRequest(
            f"{model} is no judge of harm: one of its classes must be named "
            f"{' or '.join(sorted(HARMLESS))}",
            param="model",
        )
    return {
        "flagged": any(score >= THRESHOLD for score in harmful.values()),
        "categories": {label: score >= THRESHOLD for label, score in harmful.items()},
        "category_scores": harmful,
    }


def _is_harmless(label: str) -> bool:
    name = label.lower()
    return bool({name, name.replace("_", " "), name.replace("_", "-")} & HARMLESS)
