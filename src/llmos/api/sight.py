"""A chat about an image with a model that captions: what it reads of it, and an item's answer as a
chat completion."""

from __future__ import annotations

import time

import msgspec

from llmos.abi.events import Tokens
from llmos.abi.inference import ChatPrompt
from llmos.abi.program import Generate
from llmos.abi.syscall import Model, ShowModel
from llmos.api.call import Call
from llmos.api.frames import DONE, KEEP_ALIVE, Frames
from llmos.api.infer import Outcome, Pulse, finished, report, submitted
from llmos.api.streams import InferStream
from llmos.errors import PermissionDenied, UserError
from llmos.shapes.chat import ChatBody
from llmos.shapes.outcomes import chat_answer
from llmos.shapes.sight import (
    Heard,
    captions,
    has_earlier_images,
    in_words_of,
    read_sight,
    without_earlier_images,
)


async def as_it_is_read(call: Call, wish: Generate) -> Generate:
    """The same chat; for a model that captions, without images of earlier messages: it reads none
    of them, so they are not counted, and no files are made of them."""
    assert isinstance(wish.prompt, ChatPrompt)
    if not has_earlier_images(wish.prompt):
        return wish
    asked = ShowModel(wish.model)
    try:
        shown = await call.edge.gate.call(call.principal, asked, call.trace_parent)
    except PermissionDenied:  # who may ask a model need not be one who may look at it
        return wish
    assert isinstance(shown, Model)
    if not captions(shown.model.kinds):
        return wish
    prompt = without_earlier_images(wish.prompt)
    return msgspec.structs.replace(wish, model=shown.model.ref, prompt=prompt)


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
