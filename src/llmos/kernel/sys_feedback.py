"""System calls on what people thought of answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmos.abi import feedback as fb
from llmos.abi.principal import Role
from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.kernel.front import Call
from llmos.kernel.sys_processes import find_visible

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

MAX_LISTED = 10_000


async def add_feedback(kernel: Kernel, call: Call, body: fb.AddFeedback) -> fb.FeedbackReply:
    """On an answer one may see. Raises NotFound, InvalidRequest, StorageError."""
    if len(body.comment) > fb.MAX_COMMENT_CHARS:
        message = f"a comment has at most {fb.MAX_COMMENT_CHARS} characters"
        raise InvalidRequest(message, param="comment")
    process = await find_visible(kernel, call, body.request_id)
    info = (await process.story()).info
    made = fb.Feedback(
        request_id=process.process_id,
        tenant_id=info.tenant_id,
        principal=call.principal.name,
        model=info.model,
        rating=body.rating,
        comment=body.comment,
        created_ns=time.time_ns(),
    )
    await _store(kernel).add(made)
    return fb.FeedbackReply(made)


async def list_feedback(kernel: Kernel, call: Call, body: fb.ListFeedback) -> fb.FeedbackList:
    """Newest first. Raises InvalidRequest."""
    if not 1 <= body.limit <= MAX_LISTED:
        raise InvalidRequest(f"limit is between 1 and {MAX_LISTED}", param="limit")
    is_admin = call.principal.role is Role.ADMIN
    tenant_id = None if is_admin else call.principal.tenant_id
    return fb.FeedbackList(await _store(kernel).list(tenant_id, body.limit))


def _store(kernel: Kernel) -> fb.FeedbackStore:
    if kernel.feedback is None:
        raise UnsupportedParameter("this server keeps no feedback")
    return kernel.feedback
