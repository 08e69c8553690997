"""Bodies of the routes that are answered item by item, and their answers, without a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmos.abi.inference import ItemsPrompt
from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest
from llmos.shapes.embeddings import embeddings_answer, read_embeddings
from llmos.shapes.kinds import Made, infer_answer, read_infer
from llmos.shapes.moderations import moderations_answer, read_moderations
from llmos.shapes.outcomes import report
from llmos.shapes.rerank import read_rerank, rerank_answer

EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
MODERATIONS = "/v1/moderations"
INFER = "/os/v1/infer"
URLS = (EMBEDDINGS, MODERATIONS, RERANK, INFER)

_REMEMBERED = {
    EMBEDDINGS: ("encoding_format",),
    RERANK: ("query", "documents", "top_n", "return_documents"),
}


def infer_of(url: str, body: Mapping[str, Any]) -> Generate:
    """The one inference of all items. Raises InvalidRequest and its kinds, also for images and
    recordings: they would have to be put into files, and nobody here owns one."""
    if url == INFER:
        return _without_files(read_infer(body).to_generate())
    wish: Generate = _READ[url](body).to_generate()
    return wish


def remembered(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """All of a body that `answer_body` needs."""
    names = _REMEMBERED.get(url, ())
    return {name: body[name] for name in names if body.get(name) is not None}


def answer_body(url: str, asked: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """What `url` would have answered. Raises as the route does."""
    made = Made(answer, answer.outputs, answer.usage, report(answer))
    if url == EMBEDDINGS:
        return embeddings_answer(made, asked.get("encoding_format", "float"))
    if url == RERANK:
        return rerank_answer(made, read_rerank({"model": "-", **asked}))
    return moderations_answer(made) if url == MODERATIONS else infer_answer(made, answer.kind)


def _without_files(wish: Generate) -> Generate:
    assert isinstance(wish.prompt, ItemsPrompt)
    for at, item in enumerate(wish.prompt.items):
        if isinstance(item, dict) and {"image", "audio", "blob"} & item.keys():
            text = "A line of a batch has no images and no recordings."
            raise InvalidRequest(text, param=f"inputs.{at}")
    return wish


_READ: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    EMBEDDINGS: read_embeddings,
    RERANK: read_rerank,
    MODERATIONS: read_moderations,
}
