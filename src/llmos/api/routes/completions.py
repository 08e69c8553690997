"""POST /v1/completions."""

from __future__ import annotations

import asyncio

from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.frames import Frames
from llmos.api.infer import Outcome, collect, frames_of, report, stream_choices, submitted
from llmos.api.resume import ResumePoint, resume_point
from llmos.api.routes.spec import RouteSpec
from llmos.api.streams import InferStream
from llmos.errors import UnsupportedParameter
from llmos.shapes.answers import CompletionAnswer
from llmos.shapes.completions import CompletionsBody
from llmos.shapes.inputs import read_completions
from llmos.shapes.outcomes import completion_answer


async def completions(call: Call) -> None:
    """Continue one or several prompts: one request of the kernel, and one choice, each.

    With `Last-Event-ID`, the rest of a stream of one prompt.
    """
    config = call.edge.config
    body = read_completions(await read_json(call), config.max_prompts, config.max_prompt_tokens)
    wishes, point = body.to_generates(), resume_point(call, body)
    if len(wishes) > 1 and (point is not None or body.llmos.resume_s):
        raise UnsupportedParameter(
            "Only the stream of a single prompt can be kept.", param="llmos.resume_s"
        )
    async with submitted(call, wishes, point) as streams:
        if body.stream:
            frames = _frames(body, streams, point)
            await stream_choices(call, streams, frames, body.include_usage)
        else:
            outcomes = await _collect_all(call, streams)
            reports = [report(call, s, o) for s, o in zip(streams, outcomes, strict=True)]
            choices = [outcome.choice(body.return_token_ids) for outcome in outcomes]
            await call.send_json(completion_answer(streams[0].accepted, choices, reports))


def _frames(
    body: CompletionsBody, streams: list[InferStream], point: ResumePoint | None
) -> list[Frames]:
    first = streams[0].accepted  # all choices share the answer's id
    if len(streams) == 1:
        return [frames_of(first, body, point, is_chat=False)]
    return [
        Frames(
            first,
            index,
            is_chat=False,
            include_usage=body.include_usage,
            with_ids=body.return_token_ids,
        )
        for index in range(len(streams))
    ]


async def _collect_all(call: Call, streams: list[InferStream]) -> list[Outcome]:
    if len(streams) == 1:
        return [await collect(call, streams[0])]
    tasks = [asyncio.ensure_future(collect(call, stream)) for stream in streams]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


ROUTES = [
    RouteSpec(
        "POST",
        "/v1/completions",
        completions,
        "Continue a text.",
        body=CompletionsBody,
        answer=CompletionAnswer,
    )
]
