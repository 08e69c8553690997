"""/v1/audio/transcriptions."""

from __future__ import annotations

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.ids import new_id
from llmos.abi.inference import ItemsPrompt
from llmos.api.body import body_chunks
from llmos.api.call import Call
from llmos.api.items import answered
from llmos.api.media import authorize
from llmos.api.multipart import Form, boundary_of
from llmos.api.parameters import Text, Upload, Word
from llmos.api.routes.spec import RouteSpec
from llmos.errors import InvalidRequest
from llmos.shapes.transcriptions import (
    IGNORED,
    TranscriptionAnswer,
    read_transcriptions,
    transcription_answer,
)

MAX_FIELD_BYTES = 4096
FORM_ROOM_BYTES = 65_536
"""What a form may have beside its file."""

FORM = (
    Upload("file", "The recording", required=True),
    Text("model", "Which model listens", required=True),
    Text("language", "Of what is said; absent: it is guessed"),
    Word("response_format", "JSON, or the text alone", ("json", "text")),
    *(Word(name, "Changes no answer", tuple(values)) for name, values in IGNORED.items() if values),
)


async def transcriptions(call: Call) -> None:
    """What is said in one recording."""
    authorize(call)
    boundary, upload_id = boundary_of(call), new_id("upl")
    try:
        with call.edge.uploading(call.principal.tenant_id):
            fields, blob = await _receive(call, boundary, upload_id)
        body = read_transcriptions(fields)
        wish = body.to_generate()
        assert isinstance(wish.prompt, ItemsPrompt)
        prompt = msgspec.structs.replace(wish.prompt, blobs=[blob])
        made, _ = await answered(call, msgspec.structs.replace(wish, prompt=prompt))
    finally:
        await call.edge.sink.discard(upload_id)
    answer = transcription_answer(made)
    if body.response_format == "text":
        text = f"{answer['text']}\n".encode()
        await call.send_bytes(200, text, b"text/plain; charset=utf-8")
    else:
        await call.send_json(answer)


async def _receive(call: Call, boundary: bytes, upload_id: str) -> tuple[dict[str, str], BlobRef]:
    """The fields may come in any order, each once."""
    config = call.edge.config
    fields: dict[str, str] = {}
    blob: BlobRef | None = None
    most = config.max_media_bytes + FORM_ROOM_BYTES
    chunks = body_chunks(call, most, config.body_timeout_s)
    try:
        form = Form(boundary, chunks)
        while (part := await form.next_part()) is not None:
            if part.name in fields or (part.name == "file" and blob is not None):
                raise InvalidRequest(f"{part.name!r} is given twice.", param=part.name)
            if part.name == "file":
                blob = await call.edge.sink.write(upload_id, "file", form.data())
            else:
                fields[part.name] = await form.text(part.name, MAX_FIELD_BYTES)
        await form.finish()
    finally:
        await chunks.aclose()
    if blob is None:
        raise InvalidRequest("'file' is missing.", param="file")
    return fields, blob


ROUTES = [
    RouteSpec(
        "POST",
        "/v1/audio/transcriptions",
        transcriptions,
        "What is said in a recording.",
        answer=TranscriptionAnswer,
        answer_types=("application/json", "text/plain"),
        form=FORM,
    )
]
