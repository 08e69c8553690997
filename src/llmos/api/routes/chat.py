"""POST /v1/chat/completions."""

from __future__ import annotations

from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.infer import (
    check_count,
    collect_all,
    frames_of,
    report,
    stream_choices,
    submitted,
)
from llmos.api.resume import resume_point
from llmos.api.routes.spec import RouteSpec
from llmos.api.sight import answer_sight
from llmos.shapes.answers import ChatAnswer
from llmos.shapes.chat import ChatBody
from llmos.shapes.inputs import read_chat
from llmos.shapes.outcomes import chat_answer


async def chat(call: Call) -> None:
    """A chat completion, whole or streamed; or with `Last-Event-ID` the rest of a stream."""
    config = call.edge.config
    body = read_chat(await read_json(call), config.max_messages)
    check_count(body.n, config.max_prompts)
    point = resume_point(call, body)
    if body.has_images:
        await answer_sight(call, body, point)
        return
    async with submitted(call, body.repeated(body.to_generate()), point) as streams:
        if body.stream:
            frames = frames_of(streams, body, point, body.wanted)
            await stream_choices(call, streams, frames, body)
        else:
            outcomes = await collect_all(call, streams)
            pairs = list(zip(streams, outcomes, strict=True))
            choices = [o.choice(body.return_token_ids, s.accepted, body.wanted) for s, o in pairs]
            reports = [report(call, stream, outcome) for stream, outcome in pairs]
            await call.send_json(chat_answer(streams[0].accepted, choices, reports))


ROUTES = [
    RouteSpec(
        "POST",
        "/v1/chat/completions",
        chat,
        "Answer a conversation.",
        body=ChatBody,
        answer=ChatAnswer,
    )
]
