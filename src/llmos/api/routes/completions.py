"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from typing import Any

from llmos.abi.syscall import Infer
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.frames import Frames, identity, usage_object
from llmos.api.infer import Outcome, collect, report, stream_choices, submitted
from llmos.api.routes.spec import RouteSpec
from llmos.api.shapes.answers import CompletionAnswer
from llmos.api.shapes.completions import CompletionsBody
from llmos.api.shapes.inputs import read_completions
from llmos.api.streams import InferStream


async def completions(call: Call) -> None:
    """Continue one or several prompts: one request of the kernel, and one choice, each."""
    config = call.edge.config
    body = read_completions(await read_json(call), config.max_prompts, config.max_prompt_tokens)
    sampling, options = body.to_sampling(body.token_limit), body.to_options()
    wishes = [
        Infer(body.model, prompt, sampling, options, "completions") for prompt in body.to_prompts()
    ]
    async with submitted(call, wishes) as streams:
        if body.stream:
            frames = _frames(body, streams)
            await stream_choices(call, streams, frames, body.include_usage)
        else:
            outcomes = await _collect_all(call, streams)
            await call.send_json(_answer(call, body, streams, outcomes))


def _frames(body: CompletionsBody, streams: list[InferStream]) -> list[Frames]:
    first = streams[0].accepted  # all choices share the answer's id
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


def _answer(
    call: Call, body: CompletionsBody, streams: list[InferStream], outcomes: list[Outcome]
) -> dict[str, Any]:
    reports = [report(call, s, o) for s, o in zip(streams, outcomes, strict=True)]
    return {
        **identity(streams[0].accepted, is_chat=False, is_stream=False),
        "choices": [_choice(body, i, outcome) for i, outcome in enumerate(outcomes)],
        "usage": usage_object([outcome.end.usage for outcome in outcomes]),
        "llmos": reports[0] if len(reports) == 1 else reports,
    }


def _choice(body: CompletionsBody, index: int, outcome: Outcome) -> dict[str, Any]:
    made: dict[str, Any] = {
        "index": index,
        "text": "".join(outcome.texts),
        "logprobs": None,
        "finish_reason": outcome.end.reason,
        "stop_reason": outcome.end.stop,
    }
    if body.return_token_ids:
        made["token_ids"] = outcome.token_ids
    return made


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
