"""/v1/rerank: the shape that Cohere's and Jina's clients share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmos.abi.program import Generate
from llmos.shapes import table
from llmos.shapes.answers import Answer
from llmos.shapes.embeddings import EmbeddingsLlmos, failed
from llmos.shapes.fields import fault
from llmos.shapes.kinds import (
    MAX_ITEMS,
    ItemsBody,
    ItemsUsage,
    Made,
    items_usage,
    notes_of,
    read_items_body,
)

KIND = "rerank"


def _documents(value: Any) -> Any:
    """Texts, or objects that hold one."""
    if not isinstance(value, list) or not value:
        raise fault("must be a non-empty list of texts")
    found = []
    for i, document in enumerate(value):
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            raise fault("must be a text, or an object with one", str(i))
        found.append(text)
    return found


class RerankBody(ItemsBody):
    """Body of /v1/rerank."""

    beside = table.RERANK

    query: str = Field(min_length=1, description="What they are to answer")
    documents: Annotated[
        list[str],
        BeforeValidator(_documents, json_schema_input_type=list[str | dict[str, Any]]),
        Field(max_length=MAX_ITEMS),
    ] = Field(description="Texts, or objects with `text`")
    top_n: int | None = Field(default=None, ge=1, description="Only the best so many")
    return_documents: bool = Field(default=False, description="With their texts")

    def to_generate(self) -> Generate:
        """One inference of all pairs."""
        pairs = [{"query": self.query, "text": text} for text in self.documents]
        return self.wish(KIND, pairs, "rerank")


class RerankDocument(Answer):
    text: str


class RerankResult(Answer):
    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankAnswer(Answer):
    """Answer of /v1/rerank: the most relevant document first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: ItemsUsage
    llmos: EmbeddingsLlmos


def read_rerank(body: Mapping[str, Any]) -> RerankBody:
    """Raises InvalidRequest and its kinds."""
    read: RerankBody = read_items_body(RerankBody, body)
    return read


def rerank_answer(made: Made, body: RerankBody) -> dict[str, Any]:
    """Raises the error of the first document that has one."""
    results: list[dict[str, Any]] = []
    for output in made.outputs:
        if output.error is not None:
            raise failed(output.error, f"documents.{output.index}")
        result = {"index": output.index, "relevance_score": output.value["score"]}
        if body.return_documents:
            result["document"] = {"text": body.documents[output.index]}
        results.append(result)
    results.sort(key=lambda result: (-result["relevance_score"], result["index"]))
    notes = notes_of(made.outputs)
    return {
        "id": made.head.request_id.replace("req_", "rerank-", 1),
        "object": "list",
        "model": made.head.model,
        "results": results[: body.top_n],
        "usage": items_usage(made.usage),
        "llmos": made.llmos | ({"notes": notes} if notes else {}),
    }
