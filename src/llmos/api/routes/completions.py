"""POST /v1/completions."""

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
from llmos.api.resume import LAST_EVENT_ID, resume_point
from llmos.api.routes.spec import RouteSpec
from llmos.errors import UnsupportedParameter
from llmos.shapes.answers import CompletionAnswer, ErrorAnswer
from llmos.shapes.completions import CompletionsBody
from llmos.shapes.inputs import read_completions
from llmos.shapes.outcomes import completion_answer
from llmos.shapes.toolcalls.stream import Wanted


async def completions(call: Call) -> None:
    """Continue one or several prompts: one request of the kernel, and one choice, each.

    With `Last-Event-ID`, the rest of a stream of one prompt.
    """
    config = call.edge.config
    body = read_completions(await read_json(call), config.max_prompts, config.max_prompt_tokens)
    wishes, point = body.to_generates(), resume_point(call, body)
    check_count(len(wishes), config.max_prompts)
    if len(wishes) > 1 and (point is not None or body.llmos.resume_s):
        raise UnsupportedParameter(
            "Only the stream of a single prompt can be kept.", param="llmos.resume_s"
        )
    async with submitted(call, wishes, point) as streams:
        if body.stream:
            frames = frames_of(streams, body, point, None)
            await stream_choices(call, streams, frames, body)
        else:
            outcomes = await collect_all(call, streams)
            pairs = list(zip(streams, outcomes, strict=True))
            choices = [o.choice(body.return_token_ids, s.accepted, Wanted()) for s, o in pairs]
            reports = [report(call, stream, outcome) for stream, outcome in pairs]
            usages = [choice.usage for choice in choices]
            told = body.choose(choices)
            if body.logprobs is None:
                choices = [choice._replace(logprobs=None) for choice in choices]
            answer = completion_answer(
                streams[0].accepted,
                [choices[number] for number in told],
                [reports[number] for number in told],
                body.num_each,
                usages,
            )
            await call.send_json(answer)


ROUTES = [
    RouteSpec(
        "POST",
        "/v1/completions",
        completions,
        "Continue a text.",
        body=CompletionsBody,
        answer=CompletionAnswer,
        events={"": CompletionAnswer | ErrorAnswer},
        headers=(LAST_EVENT_ID,),
    )
]
