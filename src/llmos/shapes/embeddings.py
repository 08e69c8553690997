"""/v1/embeddings: OpenAI's shape."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmos.abi.program import Generate
from llmos.errors import ErrorInfo, InvalidRequest, LLMOSError, from_info
from llmos.shapes import table
from llmos.shapes.answers import Answer, LlmosAnswer
from llmos.shapes.completions import prompts_of
from llmos.shapes.kinds import (
    MAX_ITEMS,
    ItemsBody,
    ItemsUsage,
    Made,
    floats_of,
    items_usage,
    notes_of,
    read_items_body,
)

KIND = "embeddings"


class EmbeddingsBody(ItemsBody):
    """Body of /v1/embeddings."""

    beside = table.EMBEDDINGS

    input: Annotated[
        Any,
        BeforeValidator(
            prompts_of, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ] = Field(description="A text, token ids, or a list of either")
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Vectors as numbers, or their float32 bytes"
    )
    dimensions: int | None = Field(
        default=None, ge=1, le=1 << 20, description="Only the first so many, at length 1 again"
    )

    def to_generate(self) -> Generate:
        """One inference of all inputs."""
        params = {} if self.dimensions is None else {"dimensions": self.dimensions}
        return self.wish(KIND, self.input, "embeddings", params)


class EmbeddingAnswer(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsLlmos(LlmosAnswer):
    notes: dict[str, str] | None = Field(
        default=None, description="Of inputs that were not read as they are, by number"
    )


class EmbeddingsAnswer(Answer):
    """Answer of /v1/embeddings."""

    object: Literal["list"]
    data: list[EmbeddingAnswer]
    model: str
    usage: ItemsUsage
    llmos: EmbeddingsLlmos


def read_embeddings(body: Mapping[str, Any]) -> EmbeddingsBody:
    """Raises InvalidRequest and its kinds."""
    read: EmbeddingsBody = read_items_body(EmbeddingsBody, body)
    if len(read.input) > MAX_ITEMS:
        raise InvalidRequest(f"More than {MAX_ITEMS} inputs.", param="input")
    return read


def embeddings_answer(made: Made, encoding_format: str) -> dict[str, Any]:
    """All or nothing, as OpenAI has it. Raises the error of the first input that has one."""
    data = []
    for output in made.outputs:
        if output.error is not None:
            raise failed(output.error, f"input.{output.index}")
        is_packed = encoding_format == "base64"
        vector = base64.b64encode(output.data).decode() if is_packed else floats_of(output.data)
        data.append({"object": "embedding", "index": output.index, "embedding": vector})
    notes = notes_of(made.outputs)
    return {
        "object": "list",
        "data": data,
        "model": made.head.model,
        "usage": items_usage(made.usage),
        "llmos": made.llmos | ({"notes": notes} if notes else {}),
    }


def failed(info: ErrorInfo, param: str) -> LLMOSError:
    """An item's error as that of the request, with the place of the item."""
    error = from_info(info)
    error.param = param
    return error
