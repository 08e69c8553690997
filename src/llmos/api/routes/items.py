"""Work that is answered item by item: /v1/embeddings, /v1/rerank, /v1/moderations, /os/v1/infer."""

from __future__ import annotations

from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.items import answered
from llmos.api.media import with_files
from llmos.api.routes.spec import RouteSpec
from llmos.shapes.embeddings import (
    EmbeddingsAnswer,
    EmbeddingsBody,
    embeddings_answer,
    read_embeddings,
)
from llmos.shapes.kinds import InferAnswer, InferBody, infer_answer, read_infer
from llmos.shapes.moderations import (
    ModerationsAnswer,
    ModerationsBody,
    moderations_answer,
    read_moderations,
)
from llmos.shapes.rerank import RerankAnswer, RerankBody, read_rerank, rerank_answer


async def embeddings(call: Call) -> None:
    """A vector for each text."""
    body = read_embeddings(await read_json(call))
    made, _ = await answered(call, body.to_generate())
    await call.send_json(embeddings_answer(made, body.encoding_format))


async def rerank(call: Call) -> None:
    """How well each document answers a query."""
    body = read_rerank(await read_json(call))
    made, _ = await answered(call, body.to_generate())
    await call.send_json(rerank_answer(made, body))


async def moderations(call: Call) -> None:
    """What a registered classifier finds in each text."""
    body = read_moderations(await read_json(call))
    made, _ = await answered(call, body.to_generate())
    await call.send_json(moderations_answer(made))


async def infer(call: Call) -> None:
    """Whatever a model is for; one bad input fails alone."""
    wish = read_infer(await read_json(call)).to_generate()
    async with with_files(call, wish) as prepared:
        made, kind = await answered(call, prepared)
    await call.send_json(infer_answer(made, kind))


ROUTES = [
    RouteSpec(
        "POST",
        "/v1/embeddings",
        embeddings,
        "A vector for each text.",
        body=EmbeddingsBody,
        answer=EmbeddingsAnswer,
    ),
    RouteSpec(
        "POST",
        "/v1/rerank",
        rerank,
        "Order documents by how well they answer a query.",
        body=RerankBody,
        answer=RerankAnswer,
    ),
    RouteSpec(
        "POST",
        "/v1/moderations",
        moderations,
        "What a registered classifier finds in texts.",
        body=ModerationsBody,
        answer=ModerationsAnswer,
    ),
    RouteSpec(
        "POST",
        "/os/v1/infer",
        infer,
        "Work of any kind that is answered item by item.",
        body=InferBody,
        answer=InferAnswer,
    ),
]
