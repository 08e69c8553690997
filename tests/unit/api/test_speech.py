"""/v1/audio/speech: what the gate is asked for, and the bytes as they come."""

from __future__ import annotations

import asyncio
import io
import wave
from typing import Any

import httpx
import pytest

from llmos.abi.events import Finished, FinishReason, ItemOutput, Outputs
from llmos.abi.inference import ItemsPrompt, Usage
from llmos.abi.syscall import Infer, Syscall
from llmos.errors import InvalidRequest
from tests.unit.api.fake_gate import FakeGate, edge

LONG = "One sentence that is said. " * 20
RATE = 8000


def _sound(index: int, item: str) -> ItemOutput:
    if "bad" in item:
        return ItemOutput(index, error=InvalidRequest("no", param="input").to_info())
    about = {"format": "pcm_s16le", "sampling_rate": RATE, "seconds": 0.1, "seed": 5}
    return ItemOutput(index, about, bytes([index, 0]) * 4)


async def _speaks(gate: FakeGate, call: Syscall) -> None:
    """The last part first: they are to be heard in order."""
    assert isinstance(call.body, Infer)
    prompt = call.body.prompt
    assert isinstance(prompt, ItemsPrompt)
    gate.accept(call)
    made = [_sound(i, item) for i, item in enumerate(prompt.items)]
    for output in made[::-1]:
        gate.emit(call, Outputs("r", [output]))
    gate.emit(call, Finished("r", FinishReason.STOP, Usage(7)))


def _ask(**body: Any) -> tuple[httpx.Response, ItemsPrompt | None]:
    async def scene() -> tuple[httpx.Response, ItemsPrompt | None]:
        async with edge({Infer: _speaks}) as e:
            response = await e.post("/v1/audio/speech", {"model": "m", **body})
            asked = [b for b in e.gate.bodies if isinstance(b, Infer)]
            prompt = asked[0].prompt if asked else None
            assert prompt is None or isinstance(prompt, ItemsPrompt)
            return response, prompt

    return asyncio.run(scene())


def test_a_short_text_is_one_whole_file() -> None:
    response, prompt = _ask(input="Hello.", voice={"id": "2"}, speed=1.5, llmos={"seed": 5})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["x-llmos-seed"] == "5"
    with wave.open(io.BytesIO(response.content)) as file:
        assert (file.getnframes(), file.getframerate()) == (4, RATE)
    assert prompt is not None
    assert (prompt.kind, prompt.items) == ("text-to-speech", ["Hello."])
    assert prompt.params == {"voice": "2", "speed": 1.5, "seed": 5}


@pytest.mark.parametrize("form", ["wav", "pcm"])
def test_a_long_text_is_streamed_in_its_order(form: str) -> None:
    response, prompt = _ask(input=LONG, response_format=form)
    assert prompt is not None
    assert len(prompt.items) > 2
    assert " ".join(prompt.items) == LONG.strip()
    assert "content-length" not in response.headers
    sound = b"".join(bytes([i, 0]) * 4 for i in range(len(prompt.items)))
    if form == "pcm":
        assert response.headers["content-type"] == "audio/pcm; rate=8000; channels=1"
        assert response.content == sound
    else:
        assert response.content[:4] == b"RIFF"
        assert response.content[44:] == sound


def test_a_text_that_may_not_be_parted_is_one_item() -> None:
    _, prompt = _ask(input=LONG, llmos={"overflow": "refuse"})
    assert prompt is not None
    assert prompt.items == [LONG]
    assert prompt.params["overflow"] == "refuse"


def test_a_text_that_cannot_be_said_is_refused() -> None:
    response, _ = _ask(input="bad")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "invalid_request"),
        ({"input": ""}, "input", "invalid_request"),
        ({"input": "a" * 4097}, "input", "invalid_request"),
        ({"input": "a", "response_format": "mp3"}, "response_format", "unsupported_parameter"),
        ({"input": "a", "speed": 5}, "speed", "invalid_request"),
        ({"input": "a", "instructions": "sing"}, "instructions", "unsupported_parameter"),
        ({"input": "a", "stream_format": "sse"}, "stream_format", "unsupported_parameter"),
        ({"input": "a", "voices": "x"}, "voices", "unknown_parameter"),
        ({"input": "a", "llmos": {"sead": 1}}, "llmos.sead", "unknown_parameter"),
    ],
)
def test_bad_bodies_name_the_field(body: dict[str, Any], param: str, code: str) -> None:
    response, prompt = _ask(**body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert prompt is None
    if param == "response_format":
        assert "wav, pcm" in error["message"]
