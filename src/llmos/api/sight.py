"""A chat about an image with a model that captions: an item's answer, as a chat completion."""

from __future__ import annotations

import time

from llmos.abi.events import Finished, FinishReason, ItemOutput, Outputs, Tokens
from llmos.abi.inference import ChatPrompt
from llmos.api.call import Call
from llmos.api.frames import DONE, KEEP_ALIVE, Frames
from llmos.api.infer import Outcome, Pulse, finished, report, submitted
from llmos.api.streams import InferStream
from llmos.errors import LLMOSError, UserError
from llmos.shapes.chat import ChatBody
from llmos.shapes.outcomes import Choice, chat_answer
from llmos.shapes.sight import in_chat, read_sight, sight_choice


async def answer_sight(call: Call, body: ChatBody, prompt: ChatPrompt) -> None:
    """Whole or as a stream. Raises InvalidRequest and its kinds."""
    wish, where = read_sight(body, prompt)
    try:
        async with submitted(call, [wish]) as (stream,):
            with Pulse(call, [stream]):
                output, outcome = await _collect(call, stream, body)
            choice = sight_choice(output, outcome.end.usage, where)
            if body.stream:
                await _stream(call, stream, outcome, choice, body)
            else:
                reports = [report(call, stream, outcome)]
                await call.send_json(chat_answer(stream.accepted, [choice], reports))
    except UserError as error:
        raise in_chat(error) from None


async def _collect(call: Call, stream: InferStream, body: ChatBody) -> tuple[ItemOutput, Outcome]:
    """The one item's output. A stream begins when it has nothing to say for long: until then what
    is wrong with the image can still be the answer's status."""
    outcome = Outcome(accepted_s=time.perf_counter())
    found: list[ItemOutput] = []
    async for batch in stream:
        if not batch and body.stream:
            if not call.is_started:
                await call.start_sse()
            await call.write(KEEP_ALIVE)
        for event in batch:
            if type(event) is Outputs:
                outcome.first_s = time.perf_counter()
                found += event.items
            else:
                outcome.finished = finished(event)
    if len(found) != 1:
        raise LLMOSError(f"{len(found)} answers to one image.")
    return found[0], outcome


async def _stream(
    call: Call, stream: InferStream, outcome: Outcome, choice: Choice, body: ChatBody
) -> None:
    """All that there is to say is known: role, text, end and usage in one write."""
    frames = Frames(stream.accepted, 0, is_chat=True, include_usage=body.include_usage)
    said = Tokens(stream.accepted.request_id, [], choice.text)
    end = Finished(said.request_id, FinishReason(choice.reason), choice.usage)
    made = frames.opening + frames.delta(said) + frames.finish(end, report(call, stream, outcome))
    if body.include_usage:
        made += frames.usage([choice.usage])
    if not call.is_started:
        await call.start_sse()
    await call.write(made + DONE, more=False)
