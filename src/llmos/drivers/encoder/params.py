"""What may be asked of each kind beside its items. Names and defaults are Transformers' own."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from llmos.drivers.encoder.kinds import Kind
from llmos.drivers.encoder.limits import LIMITS
from llmos.errors import InvalidRequest

Overflow = Literal["window", "truncate", "refuse"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Beams = Annotated[int, msgspec.Meta(ge=1, le=LIMITS.num_beams)]


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of every kind that reads text. `stride`: tokens that two windows share; None: the kind's."""

    overflow: Overflow = "truncate"
    stride: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)] | None = None


class Classify(Texts, frozen=True, kw_only=True):
    """`function_to_apply` None: as the model's configuration says."""

    top_k: Count | None = 1
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class Rerank(Texts, frozen=True, kw_only=True):
    function_to_apply: Literal["sigmoid", "none"] = "sigmoid"


class ZeroShot(Texts, frozen=True, kw_only=True):
    candidate_labels: Annotated[
        list[Words], msgspec.Meta(min_length=1, max_length=LIMITS.num_labels)
    ]
    hypothesis_template: Annotated[str, msgspec.Meta(max_length=1024)] = "This example is {}."
    multi_label: bool = False


class Entities(Texts, frozen=True, kw_only=True):
    overflow: Overflow = "window"
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: Annotated[list[str], msgspec.Meta(max_length=1024)] = msgspec.field(
        default_factory=lambda: ["O"]
    )


class Answers(Texts, frozen=True, kw_only=True):
    """`stride` None: 128, or half of a window."""

    overflow: Overflow = "window"
    top_k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    max_answer_len: Count = 15
    handle_impossible_answer: bool = False


class Fill(Texts, frozen=True, kw_only=True):
    top_k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    targets: Annotated[list[Words], msgspec.Meta(min_length=1, max_length=1000)] | None = None


class Embed(Texts, frozen=True, kw_only=True):
    """`pooling` and `normalize` None: as the folder says, else the mean, normalized."""

    overflow: Overflow = "window"
    pooling: Literal["mean", "cls", "max", "last"] | None = None
    normalize: bool | None = None
    dimensions: Count | None = None


class Write(Texts, frozen=True, kw_only=True):
    """`prefix` None: what the folder's `task_specific_params` say for the kind.

    `target_lang` is for models that have a token for each language, and begin with it. `num_beams`
    None: 1; with more, the likeliest of so many texts is found that are made side by side.
    """

    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.new_tokens)] | None = None
    num_beams: Beams | None = None
    prefix: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    target_lang: Words | None = None


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    top_k: Count = 5
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class Boxes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


class Transcribe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`language` None: English, where the model knows more than one."""

    language: Words | None = None
    translate: bool = False
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.new_tokens)] | None = None


class Caption(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As `Write`, of an image."""

    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=LIMITS.new_tokens)] | None = None
    num_beams: Beams | None = None


class Speak(Texts, frozen=True, kw_only=True):
    """`voice`: of a model with several, its number. `seed` None draws one; the answer tells it."""

    overflow: Overflow = "window"
    voice: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    speed: Annotated[float, msgspec.Meta(ge=0.25, le=4)] = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] | None = None


PARAMS: dict[str, type[msgspec.Struct]] = {
    Kind.CLASSIFY: Classify,
    Kind.ZERO_SHOT: ZeroShot,
    Kind.RERANK: Rerank,
    Kind.TOKENS: Entities,
    Kind.ANSWER: Answers,
    Kind.FILL: Fill,
    Kind.EMBED: Embed,
    Kind.SUMMARIZE: Write,
    Kind.TRANSLATE: Write,
    Kind.CLASSIFY_IMAGE: Images,
    Kind.DETECT: Boxes,
    Kind.TRANSCRIBE: Transcribe,
    Kind.CAPTION: Caption,
    Kind.SPEAK: Speak,
}

P = TypeVar("P", bound=msgspec.Struct)


def read_params(kind: str, given: dict[str, Any]) -> Any:
    """The kind's struct. Raises InvalidRequest naming the field."""
    return convert(given, PARAMS[kind], "params")


def convert(given: Any, shape: type[P], where: str) -> P:
    """Strict: a text is no number. Raises InvalidRequest with `where` as its param."""
    try:
        return msgspec.convert(given, shape)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{where}: {error}", param=where) from None
