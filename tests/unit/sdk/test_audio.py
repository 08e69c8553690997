"""Speech in and out: the form that is sent, the bytes that come."""

from __future__ import annotations

import asyncio
from email.parser import BytesParser
from pathlib import Path

import httpx
import pytest

from llmos.errors import InvalidRequest, StorageError
from tests.unit.sdk.fake import Pieces, Server, refusal

TRANSCRIBE, SPEAK = "POST /v1/audio/transcriptions", "POST /v1/audio/speech"


def _form(request: httpx.Request) -> dict[str, bytes]:
    head = b"content-type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    parts = BytesParser().parsebytes(head + request.content).get_payload()
    assert isinstance(parts, list)
    found = {}
    for part in parts:
        name = part.get_param("name", header="content-disposition")
        found[str(name)] = part.get_payload(decode=True)
    return found


def test_a_recording_is_sent_as_a_form(tmp_path: Path) -> None:
    server = Server({TRANSCRIBE: lambda _: httpx.Response(200, json={"text": "你好"})})
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF\r\n--x")

    async def ask() -> str:
        async with server.async_client() as client:
            return await client.items.transcribe("m", b"RIFF\r\n--x")

    with server.client() as client:
        assert client.items.transcribe("m", path, language="zh") == "你好"
        wanted = {"model": b"m", "language": b"zh", "file": b"RIFF\r\n--x"}
        assert _form(server.requests[-1]) == wanted
        with pytest.raises(StorageError, match="missing"):
            client.items.transcribe("m", tmp_path / "missing.wav")
    assert asyncio.run(ask()) == "你好"
    assert _form(server.requests[-1]) == {"model": b"m", "file": b"RIFF\r\n--x"}


def test_speech_comes_in_pieces() -> None:
    server = Server({SPEAK: httpx.Response(200, stream=Pieces(b"RIFF", b"more"))})
    heard: list[bytes] = []
    with server.client() as client:
        made = client.items.speak("m", "Hi", heard.append, voice="1", llmos={"seed": 3})
    assert (made, b"".join(heard)) == (8, b"RIFFmore")
    assert server.body() == {
        "model": "m",
        "input": "Hi",
        "voice": "1",
        "speed": 1.0,
        "response_format": "wav",
        "llmos": {"seed": 3},
    }
    server = Server({SPEAK: refusal(400, "invalid_request")})
    with server.client() as client, pytest.raises(InvalidRequest):
        client.items.speak("m", "", heard.append)
