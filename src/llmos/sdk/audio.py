"""Speech in and out, in OpenAI's shapes. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.errors import StorageError
from llmos.sdk.config import ClientConfig
from llmos.sdk.files import Pieces
from llmos.sdk.wire import Call, FileBody, Patience, Request, WholeBody, decode, encode


class _Transcription(msgspec.Struct):
    text: str


def transcribe(
    config: ClientConfig,
    model: str,
    recording: bytes | str | Path,
    *,
    language: str | None = None,
) -> Call[str]:
    """`POST /v1/audio/transcriptions`: what is said in a WAV file of this machine, or in its bytes.

    Raises StorageError (it cannot be read), InvalidRequest, PayloadTooLarge.
    """
    mark = secrets.token_hex(16)
    fields = {"model": model, **({} if language is None else {"language": language})}
    head = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="recording.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    before, after = head.encode(errors="replace"), f"\r\n--{mark}--\r\n".encode()
    form = f"multipart/form-data; boundary={mark}"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBody
    if isinstance(recording, bytes):
        body, headers = before + recording + after, (("content-type", form),)
    else:
        path = Path(recording).expanduser()
        body = FileBody(path, _size(path), lambda _: None, before, after, form)
    request = Request("POST", "/v1/audio/transcriptions", body, Patience.LONG, headers)
    return Call(request, lambda: WholeBody(_text, config.max_answer_bytes))


def speak(
    config: ClientConfig,
    model: str,
    text: str,
    write: Callable[[bytes], object],
    *,
    voice: str | None = None,
    speed: float = 1.0,
    response_format: str = "wav",
    llmos: Mapping[str, Any] | None = None,
) -> Call[int]:
    """`POST /v1/audio/speech`: a text as sound (`wav` or `pcm`), handed to `write` piece by piece
    as it is made; how many bytes there were.

    `llmos={"seed": 1}` makes the same sound again.
    """
    body = {
        "model": model,
        "input": text,
        "voice": voice,
        "speed": speed,
        "response_format": response_format,
        "llmos": dict(llmos) if llmos else None,
    }
    said = {name: value for name, value in body.items() if value is not None}
    request = Request("POST", "/v1/audio/speech", encode(said), Patience.LONG)
    return Call(request, lambda: Pieces(write))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def _text(body: bytes) -> str:
    return decode(body, _Transcription).text
