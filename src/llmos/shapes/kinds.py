"""Bodies and answers of work that is answered item by item: any kind, one shape."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from llmos.abi.events import ItemOutput
from llmos.abi.inference import ItemsPrompt, Options, Sampling, Usage
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest
from llmos.shapes.answers import Answer, ErrorBody, LlmosAnswer
from llmos.shapes.check import Shape, screen, validate
from llmos.shapes.fields import JsonList, JsonObject, ModelName
from llmos.shapes.options import CLASSES, LlmosOptions
from llmos.shapes.outcomes import Head
from llmos.shapes.status import error_object
from llmos.shapes.wav import to_wav

MAX_ITEMS = 2048
"""OpenAI's bound on the inputs of one embeddings request; ours on any."""


class ItemsOptions(LlmosOptions):
    """As everywhere, and what to do with a text that is longer than the model reads: read it in
    windows that share `stride` tokens, cut it, or refuse it. None: as the kind does by itself."""

    overflow: Literal["window", "truncate", "refuse"] | None = Field(
        default=None, description="Of a text longer than the model reads"
    )
    stride: int | None = Field(
        default=None, ge=0, le=65_536, description="Tokens that windows share"
    )


NO_OPTIONS = ItemsOptions()


class ItemsBody(Shape):
    """What every such route has."""

    model: ModelName = Field(description="`name`, `name:version` or `name:alias`")
    llmos: ItemsOptions = Field(
        default_factory=lambda: NO_OPTIONS, description="What OpenAI's API has no word for"
    )

    def to_options(self) -> Options:
        """The abi's words."""
        own = self.llmos
        return Options(
            service_class=None if own.service_class is None else CLASSES[own.service_class],
            nice=own.nice,
            deadline_ms=own.deadline_ms,
            keep_alive_s=own.keep_alive,
            deterministic=own.deterministic,
            resume_s=own.resume_s,
            cache_salt=own.cache_salt,
            driver=own.driver,
        )

    def wish(
        self, kind: str, items: list[Any], route: str, params: dict[str, Any] | None = None
    ) -> Generate:
        """One inference of all items."""
        given = dict(params or {})
        for name in ("overflow", "stride"):
            value = getattr(self.llmos, name)
            if value is not None:
                given[name] = value
        prompt = ItemsPrompt(kind, items, given)
        return Generate(self.model, prompt, Sampling(), self.to_options(), route)


class InferBody(ItemsBody):
    """Body of /os/v1/infer. Without `kind`, what the model is for."""

    kind: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="Hugging Face's name of the work; absent: what the model is for",
    )
    inputs: Annotated[JsonList, Field(min_length=1, max_length=MAX_ITEMS)] = Field(
        description="As the kind takes them, each answered by itself"
    )
    params: JsonObject = Field(default_factory=dict, description="As the kind takes them")

    def to_generate(self) -> Generate:
        """One inference of all inputs. Raises InvalidRequest."""
        if clash := {"overflow", "stride"} & self.params.keys():
            name = min(clash)
            raise InvalidRequest(f"{name!r} stands in 'llmos'.", param=f"params.{name}")
        return self.wish(self.kind or "", self.inputs, "infer", self.params)


class DatumAnswer(Answer):
    """What came of one input: its output, as the kind shapes it, or its error."""

    index: int
    output: Any = None
    note: str | None = None
    error: ErrorBody | None = None


class ItemsUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class InferAnswer(Answer):
    """Answer of /os/v1/infer."""

    object: Literal["list"]
    kind: str
    model: str
    data: list[DatumAnswer]
    usage: ItemsUsage
    llmos: LlmosAnswer


class Made(NamedTuple):
    """What came of a request: who answered, each item's output, what it cost, how it ran."""

    head: Head
    outputs: Sequence[ItemOutput]
    usage: Usage
    llmos: dict[str, Any]


def read_items_body(shape: type[Any], body: Mapping[str, Any]) -> Any:
    """A body of one of these routes. Raises InvalidRequest and its kinds."""
    kept = screen(shape, body)
    inner = kept.get("llmos")
    if isinstance(inner, dict):
        options: Any = shape.model_fields["llmos"].annotation
        kept["llmos"] = screen(options, inner, "llmos")
    return validate(shape, kept)


def read_infer(body: Mapping[str, Any]) -> InferBody:
    """Raises InvalidRequest and its kinds."""
    read: InferBody = read_items_body(InferBody, body)
    return read


def infer_answer(made: Made, kind: str) -> dict[str, Any]:
    """The body of an answer of /os/v1/infer."""
    return {
        "object": "list",
        "kind": kind,
        "model": made.head.model,
        "data": [_datum(output) for output in made.outputs],
        "usage": items_usage(made.usage),
        "llmos": made.llmos,
    }


def _datum(output: ItemOutput) -> dict[str, Any]:
    datum: dict[str, Any] = {"index": output.index}
    if output.error is not None:
        datum["error"] = error_object(output.error)
        return datum
    datum["output"] = _output(output)
    if output.note:
        datum["note"] = output.note
    return datum


def _output(output: ItemOutput) -> Any:
    """A vector; or what the kind says, with sound as the base64 of a WAV file."""
    if output.value is None:
        return floats_of(output.data)
    if not output.data:
        return output.value
    wave = to_wav(output.data, output.value["sampling_rate"])
    return output.value | {"format": "wav", "audio": base64.b64encode(wave).decode()}


def floats_of(data: bytes) -> list[float]:
    """A vector of float32."""
    return array("f", data).tolist()


def items_usage(usage: Usage) -> dict[str, int]:
    """OpenAI's, where nothing is generated."""
    total = usage.prompt_tokens + usage.completion_tokens
    return {"prompt_tokens": usage.prompt_tokens, "total_tokens": total}


def notes_of(outputs: Sequence[ItemOutput]) -> dict[str, str]:
    """What was left out of which input, by its number."""
    return {str(output.index): output.note for output in outputs if output.note}
