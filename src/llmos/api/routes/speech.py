"""/v1/audio/speech: sound as it is made, part by part."""

from __future__ import annotations

from collections.abc import AsyncIterator

from llmos.abi.events import ItemOutput, Outputs
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.infer import finished, submitted
from llmos.api.routes.spec import RouteSpec
from llmos.api.streams import InferStream
from llmos.shapes.embeddings import failed
from llmos.shapes.speech import SpeechBody, read_speech
from llmos.shapes.wav import wav_header


async def speech(call: Call) -> None:
    """A text as sound; a long one is heard before all of it is made."""
    body = read_speech(await read_json(call))
    wish = body.to_generate()
    async with submitted(call, [wish]) as streams:
        parts = _in_order(streams[0])
        async for output in parts:
            await _send(call, body, output, is_all=_num_items(wish.prompt) == 1)
        if call.is_started and _num_items(wish.prompt) > 1:
            await call.write(b"", more=False)


def _num_items(prompt: object) -> int:
    return len(getattr(prompt, "items", ()))


async def _in_order(stream: InferStream) -> AsyncIterator[ItemOutput]:
    """Each item's output as soon as those before it are there. Raises what the first bad one has,
    and what the request failed with."""
    waiting: dict[int, ItemOutput] = {}
    index = 0
    async for batch in stream:
        for event in batch:
            if type(event) is not Outputs:
                finished(event)
                continue
            waiting |= {output.index: output for output in event.items}
            while (output := waiting.pop(index, None)) is not None:
                if output.error is not None:
                    raise failed(output.error, "input")
                yield output
                index += 1


async def _send(call: Call, body: SpeechBody, output: ItemOutput, *, is_all: bool) -> None:
    """A part, after a header that knows how long it is where there is one part only."""
    rate = int(output.value["sampling_rate"])
    is_wav = body.response_format == "wav"
    content_type = b"audio/wav" if is_wav else f"audio/pcm; rate={rate}; channels=1".encode()
    seed = [(b"x-llmos-seed", str(output.value["seed"]).encode())]
    if is_all:
        head = wav_header(rate, len(output.data)) if is_wav else b""
        await call.send_bytes(200, head + output.data, content_type, seed)
        return
    if not call.is_started:
        await call.start(200, content_type, seed)
        await call.write(wav_header(rate) if is_wav else b"")
    await call.write(output.data)


ROUTES = [
    RouteSpec(
        "POST",
        "/v1/audio/speech",
        speech,
        "A text as sound.",
        body=SpeechBody,
        answer_types=("audio/wav", "audio/pcm"),
    )
]
