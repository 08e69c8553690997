"""A chat about an image with a model that captions: an item's answer, as a chat completion."""

from __future__ import annotations

import time

from llmos.abi.events import Tokens
from llmos.abi.program import Generate
from llmos.api.call import Call
from llmos.api.frames import DONE, KEEP_ALIVE, Frames
from llmos.api.infer import Outcome, Pulse, finished, report, submitted
from llmos.api.streams import InferStream
from llmos.errors import UserError
from llmos.shapes.chat import ChatBody
from llmos.shapes.outcomes import chat_answer
from llmos.shapes.sight import Heard, in_words_of, read_sight


async def answer_sight(call: Call, body: ChatBody, asked: Generate) -> None:
    """Whole or as a stream. Raises InvalidRequest and its kinds."""
    wish, where = read_sight(body, asked)
    try:
        async with submitted(call, [wish]) as (stream,):
            with Pulse(call, [stream]):
                outcome = await _collect(call, stream, body, Heard(where))
            if body.stream:
                await _stream(call, stream, outcome, body)
            else:
                choice = outcome.choice(False, stream.accepted, body.wanted)
                reports = [report(call, stream, outcome)]
                await call.send_json(chat_answer(stream.accepted, [choice], reports))
    except UserError as error:
        raise in_words_of(wish.route, error) from None


async def _collect(call: Call, stream: InferStream, body: ChatBody, heard: Heard) -> Outcome:
    """All that was said. A stream begins when it has nothing to say for long: until then what is
    wrong with the image can still be the answer's status."""
    outcome = Outcome(accepted_s=time.perf_counter())
    async for batch in stream:
        if not batch and body.stream:
            if not call.is_started:
                await call.start_sse()
            await call.write(KEEP_ALIVE)
        for event in heard(batch):
            if isinstance(event, Tokens):
                outcome.add(event)
            else:
                outcome.finished = finished(event)
    return outcome


async def _stream(call: Call, stream: InferStream, outcome: Outcome, body: ChatBody) -> None:
    """All that there is to say is known: role, text, end and usage in one write."""
    frames = Frames(stream.accepted, 0, is_chat=True, include_usage=body.include_usage)
    end = outcome.end
    said = Tokens(stream.accepted.request_id, [], "".join(outcome.texts))
    made = frames.opening + frames.delta(said) + frames.finish(end, report(call, stream, outcome))
    if body.include_usage:
        made += frames.usage([end.usage])
    if not call.is_started:
        await call.start_sse()
    await call.write(made + DONE, more=False)
