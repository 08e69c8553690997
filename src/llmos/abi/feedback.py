"""What people thought of answers, and the seam that keeps it."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

MAX_COMMENT_CHARS = 4000


class Rating(enum.StrEnum):
    """A person's word on an answer."""

    UP = "up"
    DOWN = "down"


class Feedback(msgspec.Struct, frozen=True):
    """One person's word on one answer. Times are UTC in ns."""

    request_id: str
    tenant_id: str
    principal: str
    model: str
    rating: Rating
    comment: str
    created_ns: int


class FeedbackStore(Protocol):
    """Keeps each person's last word on each answer, the newest so many of all."""

    async def add(self, feedback: Feedback) -> None:
        """On disk when it returns. Raises StorageError."""
        ...

    async def list(self, tenant_id: str | None, limit: int) -> list[Feedback]:
        """Newest first; of one tenant, or with None of all."""
        ...


class AddFeedback(msgspec.Struct, frozen=True, tag="feedback.add"):
    """On a request that is still known, of those one may see; the last word counts."""

    request_id: str
    rating: Rating
    comment: str = ""


class ListFeedback(msgspec.Struct, frozen=True, tag="feedback.list"):
    """Of one's own tenant; an administrator sees all."""

    limit: int = 100


class FeedbackReply(msgspec.Struct, frozen=True, tag="r.feedback"):
    """What is now on record."""

    feedback: Feedback


class FeedbackList(msgspec.Struct, frozen=True, tag="r.feedbacks"):
    feedback: list[Feedback]


FeedbackBody = AddFeedback | ListFeedback
FeedbackResult = FeedbackReply | FeedbackList
