"""POST /v1/chat/completions."""

from __future__ import annotations

from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.infer import collect, frames_of, report, stream_choices, submitted
from llmos.api.resume import resume_point
from llmos.api.routes.spec import RouteSpec
from llmos.shapes.answers import ChatAnswer
from llmos.shapes.chat import ChatBody
from llmos.shapes.inputs import read_chat
from llmos.shapes.outcomes import chat_answer


async def chat(call: Call) -> None:
    """A chat completion, whole or streamed; or with `Last-Event-ID` the rest of a stream."""
    body = read_chat(await read_json(call), call.edge.config.max_messages)
    point = resume_point(call, body)
    async with submitted(call, [body.to_generate()], point) as streams:
        if body.stream:
            frames = frames_of(streams[0].accepted, body, point, is_chat=True)
            await stream_choices(call, streams, [frames], body.include_usage)
        else:
            outcome = await collect(call, streams[0])
            choice = outcome.choice(body.return_token_ids)
            llmos = report(call, streams[0], outcome)
            await call.send_json(chat_answer(streams[0].accepted, choice, llmos))


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
