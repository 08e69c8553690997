"""/os/v1/feedback: what people thought of answers."""

from __future__ import annotations

from llmos.abi.feedback import FeedbackList, FeedbackReply, ListFeedback
from llmos.api.bodies.admin import FeedbackForm
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import answer, ask
from llmos.api.wire import to_wire
from llmos.shapes.inputs import read_plain

DEFAULT_LIMIT = 100


async def add_feedback(call: Call) -> None:
    """A person's word on an answer; the last one counts."""
    body = read_plain(FeedbackForm, await read_json(call))
    reply = await ask(call, body.to_call(), FeedbackReply)
    await call.send_json(to_wire(reply.feedback))


async def list_feedback(call: Call) -> None:
    """Of one's own tenant, newest first."""
    query = Query(call.scope["query_string"], ("limit",))
    limit = int(query.number("limit", DEFAULT_LIMIT, 1, 10_000))
    await answer(call, ListFeedback(limit), FeedbackList)


_PATH = "/os/v1/feedback"

ROUTES = [
    RouteSpec("POST", _PATH, add_feedback, "Say what an answer was worth.", body=FeedbackForm),
    RouteSpec("GET", _PATH, list_feedback, "What answers were found worth.", query=("limit",)),
]
