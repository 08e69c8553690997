"""/os/v1/feedback: what people thought of answers."""

from __future__ import annotations

from llmos.abi.feedback import Feedback, FeedbackList, FeedbackReply, ListFeedback
from llmos.api.bodies.admin import FeedbackForm
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.parameters import Count
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask
from llmos.errors import NotFound
from llmos.shapes.inputs import read_plain

LIMIT = Count("limit", "At most so many", 100, 10_000)


async def add_feedback(call: Call) -> Feedback:
    """A person's word on an answer; the last one counts."""
    body = read_plain(FeedbackForm, await read_json(call))
    return (await ask(call, body.to_call(), FeedbackReply)).feedback


async def list_feedback(call: Call) -> FeedbackList:
    """Of one's own tenant, newest first."""
    return await ask(call, ListFeedback(Query(call, (LIMIT,))[LIMIT]), FeedbackList)


_PATH = "/os/v1/feedback"

ROUTES = [
    RouteSpec(
        "POST",
        _PATH,
        add_feedback,
        "Say what an answer was worth.",
        body=FeedbackForm,
        raises=(NotFound,),
    ),
    RouteSpec("GET", _PATH, list_feedback, "What answers were found worth.", query=(LIMIT,)),
]
