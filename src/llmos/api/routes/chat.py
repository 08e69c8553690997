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
from llmos.api.media import with_images
from llmos.api.resume import LAST_EVENT_ID, ResumePoint, resume_point
from llmos.api.routes.spec import RouteSpec
from llmos.api.sight import answer_sight, as_it_is_read
from llmos.api.streams import InferStream
from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes.answers import ChatAnswer, ChatChunk, ErrorAnswer
from llmos.shapes.chat import ChatBody
from llmos.shapes.inputs import read_chat
from llmos.shapes.outcomes import chat_answer
from llmos.shapes.sight import is_captioner


async def chat(call: Call) -> None:
    """A chat completion, whole or streamed; or with `Last-Event-ID` the rest of a stream."""
    config = call.edge.config
    body = read_chat(await read_json(call), config.max_messages)
    check_count(body.n, config.max_prompts)
    point = resume_point(call, body)
    if body.has_images:
        await _about_images(call, body, point)
        return
    async with submitted(call, body.repeated(body.to_generate()), point) as streams:
        await _answer(call, body, point, streams)


async def _about_images(call: Call, body: ChatBody, point: ResumePoint | None) -> None:
    """A model that chats is asked first; one that only captions answers in its own way."""
    for name, given in (("Last-Event-ID", point), ("llmos.resume_s", body.llmos.resume_s)):
        if given:  # its files are gone with the connection
            raise UnsupportedParameter("No answer about an image is kept.", param=name)
    async with with_images(call, await as_it_is_read(call, body.to_generate())) as wish:
        try:
            async with submitted(call, body.repeated(wish)) as streams:
                await _answer(call, body, None, streams)
        except InvalidRequest as error:
            if not is_captioner(error) or call.is_started:
                raise
            await answer_sight(call, body, wish)


async def _answer(
    call: Call, body: ChatBody, point: ResumePoint | None, streams: list[InferStream]
) -> None:
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
        events={"": ChatChunk | ErrorAnswer},
        headers=(LAST_EVENT_ID,),
    )
]
