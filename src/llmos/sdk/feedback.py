"""What people thought of answers: one pure function per call."""

from __future__ import annotations

from llmos.abi.feedback import Feedback as Word
from llmos.abi.feedback import FeedbackList, Rating
from llmos.sdk.config import ClientConfig
from llmos.sdk.groups import Async, AsyncGroup, Group, Sync
from llmos.sdk.shown import Listed
from llmos.sdk.wire import Call, Request, WholeBody, decode, encode

_PATH = "/os/v1/feedback"


def add_feedback(
    config: ClientConfig, request_id: str, rating: Rating | str, comment: str = ""
) -> Call[Word]:
    """Say what an answer was worth, `up` or `down`; the last word counts.

    `request_id` is in the answer's `llmos`. Raises NotFound, InvalidRequest.
    """
    body = {"request_id": request_id, "rating": str(rating), "comment": comment}
    request = Request("POST", _PATH, encode(body))
    return Call(request, lambda: WholeBody(lambda b: decode(b, Word), config.max_answer_bytes))


def list_feedback(config: ClientConfig, *, limit: int = 100) -> Call[Listed[Word]]:
    """What was said of one's tenant's answers, newest first; an administrator sees all."""
    request = Request("GET", f"{_PATH}?limit={limit}")
    return Call(request, lambda: WholeBody(_words, config.max_answer_bytes))


def _words(body: bytes) -> Listed[Word]:
    return Listed(decode(body, FeedbackList).feedback)


class Feedback(Group):
    """`client.feedback`."""

    add = Sync(add_feedback)
    list = Sync(list_feedback)


class AsyncFeedback(AsyncGroup):
    """`client.feedback`."""

    add = Async(add_feedback)
    list = Async(list_feedback)
