"""An evaluation: how good a model's answers are on examples that are answered already.

It is the job of the program `evaluate`: `inputs["eval"]` is an `EvalSpec` as JSON, `files["data"]`
the examples, `files["corpus"]` what is searched if anything is. Beside the model another may be
asked the same (`against`), and compared example by example. A gate says what must hold; whether it
did, and why, is in the job's outputs.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

from llmos.abi.tasks import Policy
from llmos.errors import InvalidRequest

EVALUATE = "evaluate"
"""The program."""

EVAL = "eval"
"""The key of its inputs."""

DATA = "data"
"""The name of its file."""

CORPUS = "corpus"
"""The name of another that `retrieve` may have: documents to search, instead of each example's own.
"""

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class EvalKind(enum.StrEnum):
    """What is measured. CHOICE: one of some answers; JUDGE: another model says which is better."""

    CLASSIFY = "classify"
    NER = "ner"
    QA = "qa"
    GENERATE = "generate"
    SUMMARIZE = "summarize"
    TRANSLATE = "translate"
    PERPLEXITY = "perplexity"
    CHOICE = "choice"
    RETRIEVE = "retrieve"
    JUDGE = "judge"


class DataFormat(enum.StrEnum):
    """How the file holds examples. TEXT: all of it is text (perplexity)."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    JSON = "json"
    PARQUET = "parquet"
    CONLL = "conll"
    SQUAD = "squad"
    LINES = "lines"
    TEXT = "text"


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of a score: where it must lie. With `sure`, its whole interval must."""

    min: float | None = None
    max: float | None = None
    sure: bool = False


class Gate(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What must hold. `bounds`: by score. `worse`: by score, how much worse than `against` it may
    be, and surely is not: the probability of more is at most 1 - `confidence`."""

    bounds: dict[str, Bounds] = {}
    worse: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    confidence: Share = 0.95


class Judge(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who judges, and by what. `swap`: each pair twice, the other way round, and only a verdict
    that stays counts."""

    model: str
    rubric: str = ""
    swap: bool = True
    max_tokens: Annotated[int, msgspec.Meta(ge=8, le=4096)] = 256


class EvalSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is asked for.

    An `against` that ends with `?` is left out where there is no such model yet. `columns` maps
    what the kind reads (`text`, `label`, `question`, `reference` ...) to columns of the data.
    `labels` are all there are; `rename` maps the model's own labels to the data's. `slices` are
    columns by whose values scores are told apart. `limit` examples are drawn with `seed`. `score`
    is the one that counts most (empty: the kind's own). `by` of a choice: `letter`, or `logprobs`.
    `query_prefix` and `document_prefix` are what a model that makes vectors was trained to read
    before either. Failed calls beyond the share `max_failed` fail the evaluation.
    """

    kind: EvalKind
    model: str
    against: str = ""
    format: DataFormat | None = None
    corpus_format: DataFormat | None = None
    columns: dict[str, str] = {}
    labels: list[str] = []
    rename: dict[str, str] = {}
    slices: list[str] = []
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seed: int = 0
    prompt: str = ""
    system: str = ""
    language: str = ""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    params: dict[str, Any] = {}
    score: str = ""
    by: str = "letter"
    strict: bool = False
    query_prefix: str = ""
    document_prefix: str = ""
    window_bytes: Annotated[int, msgspec.Meta(ge=16)] | None = None
    confidence: Share = 0.95
    resamples: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 1000
    max_failed: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    judge: Judge | None = None
    gate: Gate | None = None
    policy: Policy = Policy()
    title: str = ""


_BY_SUFFIX = {
    "csv": DataFormat.CSV,
    "tsv": DataFormat.TSV,
    "jsonl": DataFormat.JSONL,
    "ndjson": DataFormat.JSONL,
    "json": DataFormat.JSON,
    "parquet": DataFormat.PARQUET,
    "conll": DataFormat.CONLL,
    "txt": DataFormat.LINES,
}
_BY_KIND = {
    (EvalKind.QA, "json"): DataFormat.SQUAD,
    (EvalKind.NER, "txt"): DataFormat.CONLL,
    (EvalKind.PERPLEXITY, "txt"): DataFormat.TEXT,
}


def format_of(filename: str, kind: EvalKind) -> DataFormat | None:
    """As the file's name ends; None where that tells nothing."""
    suffix = filename.rpartition(".")[2].lower()
    return _BY_KIND.get((kind, suffix)) or _BY_SUFFIX.get(suffix)


def read_eval(given: Any) -> EvalSpec:
    """Raises InvalidRequest naming the field."""
    try:
        spec = msgspec.convert(given, EvalSpec)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        param = where.rstrip("`") or EVAL
        raise InvalidRequest(f"eval: {what} ({param})", param=param) from None
    if spec.kind is EvalKind.JUDGE and spec.judge is None:
        raise InvalidRequest("eval: judge: name who judges: judge.model", param="judge")
    if spec.by not in ("letter", "logprobs"):
        raise InvalidRequest("eval: by: letter or logprobs", param="by")
    if (spec.query_prefix or spec.document_prefix) and spec.kind is not EvalKind.RETRIEVE:
        text = f"eval: {spec.kind} compares no vectors: prefixes are for retrieve"
        raise InvalidRequest(text, param="query_prefix")
    if spec.gate is not None and spec.gate.worse and not spec.against:
        raise InvalidRequest("eval: gate.worse needs `against`", param="gate.worse")
    if len(set(spec.labels)) != len(spec.labels):
        raise InvalidRequest("eval: labels has one label twice", param="labels")
    return spec
