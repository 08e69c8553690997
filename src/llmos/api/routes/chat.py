"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from llmos.abi.syscall import Infer
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.frames import Frames, identity, usage_object
from llmos.api.infer import Outcome, collect, report, stream_choices, submitted
from llmos.api.routes.spec import RouteSpec
from llmos.api.shapes.answers import ChatAnswer
from llmos.api.shapes.chat import ChatBody
from llmos.api.shapes.inputs import read_chat
from llmos.api.streams import InferStream


async def chat(call: Call) -> None:
    """A chat completion, whole or streamed."""
    body = read_chat(await read_json(call), call.edge.config.max_messages)
    sampling = body.to_sampling(body.token_limit)
    wish = Infer(body.model, body.to_prompt(), sampling, body.to_options(), "chat")
    async with submitted(call, [wish]) as streams:
        if body.stream:
            frames = Frames(
                streams[0].accepted,
                0,
                is_chat=True,
                include_usage=body.include_usage,
                with_ids=body.return_token_ids,
            )
            await stream_choices(call, streams, [frames], body.include_usage)
        else:
            outcome = await collect(call, streams[0])
            await call.send_json(_answer(call, body, streams[0], outcome))


def _answer(call: Call, body: ChatBody, stream: InferStream, outcome: Outcome) -> dict[str, Any]:
    end = outcome.end
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(outcome.texts), "refusal": None},
        "logprobs": None,
        "finish_reason": end.reason,
        "stop_reason": end.stop,
    }
    if body.return_token_ids:
        choice["token_ids"] = outcome.token_ids
    return {
        **identity(stream.accepted, is_chat=True, is_stream=False),
        "choices": [choice],
        "usage": usage_object([end.usage]),
        "llmos": report(call, stream, outcome),
    }


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
