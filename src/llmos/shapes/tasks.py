"""The body of POST /os/v1/tasks: what a task file says, and the job that it becomes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from pydantic import BeforeValidator, Field

from llmos.abi.inference import Sampling
from llmos.abi.jobs import JobSpec
from llmos.abi.tasks import (
    INPUT,
    TASK,
    InputFormat,
    OutputFormat,
    Policy,
    Prices,
    TaskKind,
    TaskSpec,
)
from llmos.errors import InvalidRequest
from llmos.shapes.check import Shape
from llmos.shapes.fields import (
    JsonList,
    JsonObject,
    Metadata,
    ModelName,
    Probability,
    Seed,
    Stops,
    Temperature,
    TokenCount,
)
from llmos.shapes.options import CLASSES

AUTO = "auto"
"""The model's name that leaves the choice to the server."""

MAX_ITEMS = 10_000
MAX_LABELS = 1000
MAX_DEADLINE_S = 2_592_000.0
GRACE_S = 3600
"""For putting away what an expired task has; after it the job itself expires."""

MAX_TOKENS: dict[TaskKind, int] = {
    TaskKind.GENERATE: 256,
    TaskKind.SUMMARIZE: 256,
    TaskKind.TRANSLATE: 512,
    TaskKind.CLASSIFY: 16,
    TaskKind.EXTRACT: 512,
    TaskKind.QA: 64,
}
"""Of one answer, where nothing is said."""

_NS = 1_000_000_000
_BY_SUFFIX = {
    "csv": InputFormat.CSV,
    "tsv": InputFormat.TSV,
    "jsonl": InputFormat.JSONL,
    "ndjson": InputFormat.JSONL,
    "json": InputFormat.JSON,
    "parquet": InputFormat.PARQUET,
    "md": InputFormat.DOCUMENT,
}


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Column = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
FormatName = Literal["jsonl", "json", "csv", "parquet", "md", "html", "txt"]
Formats = Annotated[
    list[FormatName],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=len(OutputFormat)),
]


def _default_formats() -> list[FormatName]:
    return ["jsonl"]


class TaskInput(Shape):
    """`items`, each a text or an object of columns, or a `file` that was uploaded."""

    items: JsonList | None = Field(
        default=None, min_length=1, max_length=MAX_ITEMS, description="Texts, or objects of columns"
    )
    file: str | None = Field(
        default=None, min_length=1, max_length=64, description="The id of one that was uploaded"
    )
    format: Literal["csv", "tsv", "jsonl", "json", "parquet", "lines", "document"] | None = Field(
        default=None, description="Of the file; absent: by its name"
    )
    column: Column | None = Field(default=None, description="The column that is `text`")
    columns: dict[Column, Column] = Field(
        default_factory=dict, max_length=64, description="Names the task reads: columns"
    )


class TaskOutput(Shape):
    """What results become, and which columns of the input come back (absent: all)."""

    formats: Formats = Field(
        default_factory=_default_formats, description="Files to make of the results"
    )
    columns: list[Column] | None = Field(
        default=None, max_length=1000, description="Of the input, that come back; absent: all"
    )


class TaskSampling(Shape):
    """How a generating model answers."""

    temperature: Temperature = Field(default=0.0, description="0: always the likeliest token")
    top_p: Probability = Field(
        default=1.0, description="Draw from the likeliest tokens that make up this much"
    )
    seed: Seed | None = Field(default=None, description="Draw the same again")
    stop: Stops = Field(default_factory=list, description="End before any of these texts")
    max_tokens: TokenCount | None = Field(default=None, description="Of one answer")


class PricesBody(Shape):
    """US dollars per million tokens."""

    prompt: float = Field(ge=0, le=1e6, description="Of what is read")
    completion: float = Field(ge=0, le=1e6, description="Of what is written")


class TaskPolicy(Shape):
    """How it is carried out. `retries` and `timeout_s` are of one input, the rest of the task."""

    service_class: Literal["batch", "default", "interactive"] = Field(
        default="batch", alias="class", description="How urgent it is, by class"
    )
    nice: int = Field(default=0, ge=-20, le=19, description="And within its class: -20 comes first")
    deadline_s: float | None = Field(
        default=None, gt=0, le=MAX_DEADLINE_S, description="After so long what is not done is left"
    )
    retries: int = Field(
        default=3, ge=0, le=100, description="Of one input, after failures that may pass"
    )
    timeout_s: float | None = Field(default=None, gt=0, le=86_400, description="Of one input")
    max_tokens: int | None = Field(default=None, ge=1, le=10**15, description="Of all inputs")
    max_cost: float | None = Field(default=None, gt=0, le=1e9, description="US dollars")
    prices: PricesBody | None = Field(default=None, description="What `max_cost` counts with")
    window: int = Field(default=64, ge=1, le=1024, description="Calls under way at once")

    def to_policy(self, now_ns: int) -> Policy:
        expires_at = None if self.deadline_s is None else now_ns / _NS + self.deadline_s
        prices = self.prices
        return Policy(
            retries=self.retries,
            timeout_s=self.timeout_s,
            expires_at=expires_at,
            max_tokens=self.max_tokens,
            max_cost=self.max_cost,
            prices=None if prices is None else Prices(prices.prompt, prices.completion),
            window=self.window,
        )


class Chosen(NamedTuple):
    """The model that will do it, and why."""

    model: str
    work: str
    is_chat: bool
    reason: str


class TaskBody(Shape):
    """A declared task. See docs/tasks.md."""

    type: Literal[
        "generate",
        "summarize",
        "translate",
        "classify",
        "extract",
        "qa",
        "embed",
        "rerank",
        "caption",
        "transcribe",
    ] = Field(description="What to do with each input")
    input: TaskInput = Field(description="What to do it with")
    model: ModelName = Field(default=AUTO, description="`auto`: the server chooses one that can")
    language: str | None = Field(
        default=None,
        pattern=r"^[a-z]{2,3}$",
        description="ISO 639 code of the inputs, for the choice of a model",
    )
    prompt: str = Field(default="", max_length=100_000, description="A Jinja template")
    system: str = Field(
        default="", max_length=100_000, description="Said by the system before each prompt"
    )
    labels: list[Label] = Field(
        default_factory=list, max_length=MAX_LABELS, description="To classify by"
    )
    to: str = Field(default="", max_length=64, description="The language to translate into")
    schema_: JsonObject | None = Field(
        default=None, alias="schema", description="A JSON Schema, of what is extracted"
    )
    sampling: TaskSampling = Field(
        default_factory=TaskSampling, description="How a generating model answers"
    )
    params: JsonObject = Field(default_factory=dict, description="Of a model made for the task")
    output: TaskOutput = Field(default_factory=TaskOutput, description="What results become")
    policy: TaskPolicy = Field(default_factory=TaskPolicy, description="How it is carried out")
    name: str = Field(default="", max_length=128, description="For people")
    metadata: Metadata = Field(
        default_factory=dict,
        description="Kept with it: 16 pairs, keys of 64, values of 512 characters",
    )

    @property
    def kind(self) -> TaskKind:
        return TaskKind(self.type)

    @property
    def needs_prompting(self) -> bool:
        """Only a model that generates can do it."""
        return bool(self.prompt or self.schema_ is not None)

    def to_spec(self, chosen: Chosen, filename: str, now_ns: int) -> JobSpec:
        """The job; `filename` is that of the input's file. Raises InvalidRequest."""
        policy, given = self.policy, self.input
        task = TaskSpec(
            kind=self.kind,
            model=chosen.model,
            work=chosen.work,
            is_chat=chosen.is_chat,
            reason=chosen.reason,
            items=given.items or [],
            format=self._format(filename),
            columns=self._columns(),
            prompt=self.prompt,
            system=self.system,
            labels=self.labels,
            language=self.to,
            schema=self.schema_,
            sampling=self._sampling(),
            params=self.params,
            outputs=[OutputFormat(name) for name in self.output.formats],
            keep=self.output.columns,
            policy=policy.to_policy(now_ns),
            title=self.name,
        )
        expires_ns = None
        if policy.deadline_s is not None:
            expires_ns = now_ns + int((policy.deadline_s + GRACE_S) * _NS)
        return JobSpec(
            program=TASK,
            inputs={TASK: msgspec.to_builtins(task)},
            name=self.name,
            files={} if given.file is None else {INPUT: given.file},
            service_class=CLASSES[policy.service_class],
            nice=policy.nice,
            expires_ns=expires_ns,
            metadata=self.metadata,
        )

    def check_input(self) -> None:
        """Raises InvalidRequest unless there are items or a file, not both."""
        if (self.input.items is None) == (self.input.file is None):
            raise InvalidRequest("'input' has either 'items' or a 'file'.", param="input")
        if len(set(self.labels)) != len(self.labels):
            raise InvalidRequest("'labels' has one label twice.", param="labels")

    def _format(self, filename: str) -> InputFormat:
        if self.input.format is not None:
            return InputFormat(self.input.format)
        suffix = filename.rpartition(".")[2].lower()
        return _BY_SUFFIX.get(suffix, InputFormat.LINES)

    def _columns(self) -> dict[str, str]:
        columns = dict(self.input.columns)
        if self.input.column is not None:
            if columns.get("text", self.input.column) != self.input.column:
                text = "'input.column' contradicts 'input.columns.text'."
                raise InvalidRequest(text, param="input.column")
            columns["text"] = self.input.column
        return columns

    def _sampling(self) -> Sampling:
        own = self.sampling
        return Sampling(
            temperature=own.temperature,
            top_p=own.top_p,
            seed=own.seed,
            stop=own.stop,
            max_tokens=own.max_tokens or MAX_TOKENS.get(self.kind, 0),
        )
