"""A Task: many inputs, one thing to be done with each. A declared spec that becomes a Job.

It is the job of the program `task`: `inputs["task"]` is a `TaskSpec` as `msgspec.to_builtins` makes
it, `files[INPUT]` what is read where no items are given. Whoever submits it has chosen the model.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from llmos.abi.inference import GENERATE, Sampling

TASK = "task"
"""The program, and the key of its inputs."""

INPUT = "input"
"""The name of the job's one file."""


class TaskKind(enum.StrEnum):
    """What is done with each input."""

    GENERATE = "generate"
    SUMMARIZE = "summarize"
    TRANSLATE = "translate"
    CLASSIFY = "classify"
    EXTRACT = "extract"
    QA = "qa"
    EMBED = "embed"
    RERANK = "rerank"
    CAPTION = "caption"
    TRANSCRIBE = "transcribe"


class InputFormat(enum.StrEnum):
    """How a file holds its inputs. LINES: one in a line; DOCUMENT: the file is one."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    JSON = "json"
    PARQUET = "parquet"
    LINES = "lines"
    DOCUMENT = "document"


class OutputFormat(enum.StrEnum):
    """What the results become. HTML is a report with a chart."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    MARKDOWN = "md"
    HTML = "html"
    TEXT = "txt"


class Prices(msgspec.Struct, frozen=True, omit_defaults=True):
    """US dollars per million tokens, of a model that is not free."""

    prompt: float = 0.0
    completion: float = 0.0


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task is carried out. What the job itself knows (class, nice) is not told here.

    `retries` after failures that may pass and `timeout_s` are of one input. Past `expires_at` (UTC
    seconds) and over a budget, of tokens or US dollars, inputs that are left fail. `window`: calls
    under way at once.
    """

    retries: int = 3
    timeout_s: float | None = None
    expires_at: float | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prices: Prices | None = None
    window: int = 64


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is asked for.

    `model` is a reference to one that is registered, `work` the kind of work it does for the task
    (an item kind, or `generate` by a prompt), `is_chat` whether it takes messages, `reason` why
    this model. `columns` maps what the task reads (`text`, `question`, `context` ...) to columns of
    the input. `prompt` is a Jinja template over these and over all columns; empty: the kind's own.
    `labels` are of classify and extract, `language` is what to translate into, `schema` what an
    answer of JSON must be. `keep` are the input's columns that come back (None: all).
    """

    kind: TaskKind
    model: str
    work: str = GENERATE
    is_chat: bool = True
    reason: str = ""
    items: list[Any] = []
    format: InputFormat = InputFormat.JSONL
    columns: dict[str, str] = {}
    prompt: str = ""
    system: str = ""
    labels: list[str] = []
    language: str = ""
    schema: dict[str, Any] | None = None
    sampling: Sampling = Sampling(temperature=0.0)
    params: dict[str, Any] = {}
    outputs: list[OutputFormat] = msgspec.field(default_factory=lambda: [OutputFormat.JSONL])
    keep: list[str] | None = None
    policy: Policy = Policy()
    title: str = ""
