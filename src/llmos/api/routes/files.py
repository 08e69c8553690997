"""/v1/files: OpenAI's Files, streamed in and out; no file is ever held in memory."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from llmos.abi.blob import BlobRef
from llmos.abi.files import FileFilter, FileRecord
from llmos.abi.ids import new_id
from llmos.abi.principal import Action, Resource
from llmos.abi.syscall_jobs import (
    AddFile,
    FileList,
    FileReply,
    ListFiles,
    OpenedFile,
    OpenFile,
    RemoveFile,
    ShowFile,
)
from llmos.api.body import body_chunks
from llmos.api.call import Call, ClientGone, Header, watching
from llmos.api.idempotency import IDEMPOTENCY_KEY, idempotency_of
from llmos.api.multipart import Form, boundary_of
from llmos.api.parameters import Count, Text, Upload, Word
from llmos.api.query import Query
from llmos.api.ranges import ByteRange, Unsatisfiable, range_of
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.api.status import encode_envelope
from llmos.errors import DiskFull, InvalidRequest, NotFound, QuotaExceeded
from llmos.shapes.files import (
    MAX_EXPIRES_S,
    MIN_EXPIRES_S,
    PURPOSES,
    FileDeleted,
    FileObject,
    FilePage,
    check_filename,
    check_purpose,
    expires_after_s,
    file_object,
    page_object,
)
from llmos.shapes.table import NOTHING, unknown

MAX_FIELD_BYTES = 1024
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FORM = (
    Upload("file", "The file, with a name", required=True),
    Word("purpose", "What it is for", PURPOSES, required=True),
    Text(ANCHOR, "`created_at`: with the next, it goes so long after it was made"),
    Text(SECONDS, f"From {MIN_EXPIRES_S} to {MAX_EXPIRES_S}, in seconds"),
)
FIELDS = tuple(field.name for field in FORM)
AFTER = Text("after", "The last id of the page before")
LIMIT = Count("limit", "At most so many", 10_000, 10_000)
ORDER = Word("order", "By age, newest or oldest first", ("desc", "asc"))
PURPOSE = Text("purpose", "Uploaded for this purpose")
LIST_QUERY = (AFTER, LIMIT, ORDER, PURPOSE)
RANGES = (
    Text("Range", "One part: `bytes=FIRST-LAST`, answered with 206"),
    Text("If-Range", "The `etag` the part has to be of"),
)


class _Given(NamedTuple):
    """What a form had: its plain fields, and its file."""

    fields: dict[str, str]
    filename: str
    blob: BlobRef


async def create_file(call: Call) -> None:
    """Answered once the file is on disk and on record."""
    tenant_id = call.principal.tenant_id
    # bytes do not pass the gate, so its question is asked here
    call.edge.authorizer.authorize(
        call.principal, Action.WRITE_FILES, Resource("file", tenant_id=tenant_id)
    )
    boundary = boundary_of(call)
    upload_id = new_id("upl")
    try:
        with call.edge.uploading(tenant_id):
            given = await _receive(call, boundary, upload_id)
        purpose = check_purpose(given.fields.get("purpose"))
        expires_s = expires_after_s(purpose, given.fields.get(ANCHOR), given.fields.get(SECONDS))
        asked = [given.filename, purpose, expires_s, given.blob.digest]
        body = AddFile(upload_id, given.filename, purpose, expires_s, idempotency_of(call, asked))
        added = await ask(call, body, FileReply)
    finally:
        await call.edge.sink.discard(upload_id)  # nothing is left of it once it is a file
    await call.send_json(file_object(added.file))


async def _receive(call: Call, boundary: bytes, upload_id: str) -> _Given:
    """The fields may come in any order, each once."""
    config = call.edge.config
    fields: dict[str, str] = {}
    filename, blob = "", None
    chunks = body_chunks(call, config.max_upload_bytes, config.body_timeout_s)
    try:
        form = Form(boundary, chunks)
        while (part := await form.next_part()) is not None:
            name = part.name
            if name not in FIELDS:
                raise unknown(name, FIELDS, NOTHING)
            if name in fields or (name == "file" and blob is not None):
                raise InvalidRequest(f"{name!r} is given twice.", param=name)
            if name == "file":
                if part.filename is None:
                    raise InvalidRequest("'file' must be a file, with a name.", param="file")
                filename = check_filename(part.filename)
                blob = await call.edge.sink.write(upload_id, "file", form.data())
            else:
                fields[name] = await form.text(name, MAX_FIELD_BYTES)
        await form.finish()
    finally:
        await chunks.aclose()
    if blob is None:
        raise InvalidRequest("'file' is missing.", param="file")
    return _Given(fields, filename, blob)


async def list_files(call: Call) -> None:
    """The tenant's files."""
    query = Query(call, LIST_QUERY)
    wanted = FileFilter(
        tenant_id=call.principal.tenant_id,
        purpose=query[PURPOSE],
        after=query[AFTER],
        limit=query[LIMIT],
        newest_first=query[ORDER] == "desc",
    )
    found = await ask(call, ListFiles(wanted), FileList)
    await call.send_json(page_object([file_object(f) for f in found.files], found.has_more))


async def show_file(call: Call) -> None:
    """One file's record."""
    found = await ask(call, ShowFile(ref_of(call, "file_id")), FileReply)
    await call.send_json(file_object(_own(call, found.file)))


async def delete_file(call: Call) -> None:
    """Jobs that read it already go on."""
    file_id = ref_of(call, "file_id")
    _own(call, (await ask(call, ShowFile(file_id), FileReply)).file)
    removed = await ask(call, RemoveFile(file_id), FileReply)
    await call.send_json({"id": removed.file.file_id, "object": "file", "deleted": True})


async def read_file(call: Call) -> None:
    """Its bytes, or a range of them."""
    await send_file(call, await ask(call, OpenFile(ref_of(call, "file_id")), OpenedFile))


async def send_file(call: Call, opened: OpenedFile) -> None:
    """One's own file, or the range of it that the client asks for. Raises NotFound."""
    record = _own(call, opened.file)
    etag = b'"%s"' % record.digest.encode()
    size_bytes = record.size_bytes
    try:
        part = range_of(call.headers, etag, size_bytes)
    except Unsatisfiable:
        refusal = InvalidRequest(f"The file has {size_bytes} bytes.", param="range")
        extra = [(b"content-range", b"bytes */%d" % size_bytes)]
        await call.send_bytes(416, encode_envelope(refusal), b"application/json", extra)
        return
    await _send(call, opened, part, _headers(record, etag))


def _headers(record: FileRecord, etag: bytes) -> list[Header]:
    name = quote(record.filename, safe="", errors="replace")
    return [
        (b"etag", etag),
        (b"accept-ranges", b"bytes"),
        (b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()),
        (b"x-content-type-options", b"nosniff"),
    ]


async def _send(
    call: Call, opened: OpenedFile, part: ByteRange | None, headers: list[Header]
) -> None:
    """What cannot be read to its end is cut short, which its length tells the client."""
    size_bytes = opened.file.size_bytes
    start, end = part or (0, size_bytes)
    if part is not None:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size_bytes)))
    gone: list[bool] = []
    with watching(call, lambda: gone.append(True)):
        chunks = call.edge.source.read(opened.blob, start, end)
        first = await anext(chunks, b"")  # what cannot be opened is still a plain error
        headers.append((b"content-length", b"%d" % (end - start)))
        await call.start(200 if part is None else 206, b"application/octet-stream", headers)
        await call.write(first)
        async for chunk in chunks:
            if gone:
                raise ClientGone
            await call.write(chunk)
        await call.write(b"", more=False)


def _own(call: Call, record: FileRecord) -> FileRecord:
    """OpenAI's routes show what is the tenant's, to administrators too. Raises NotFound."""
    if record.tenant_id != call.principal.tenant_id:
        raise NotFound(f"No such file: {record.file_id}.", param="file_id")
    return record


_ONE = "/v1/files/{file_id}"

ROUTES = [
    RouteSpec(
        "POST",
        "/v1/files",
        create_file,
        "Upload a file.",
        answer=FileObject,
        form=FORM,
        headers=(IDEMPOTENCY_KEY,),
        raises=(QuotaExceeded, DiskFull),
    ),
    RouteSpec("GET", "/v1/files", list_files, "Files.", answer=FilePage, query=LIST_QUERY),
    RouteSpec(
        "GET",
        _ONE + "/content",
        read_file,
        "A file's bytes, or a range of them.",
        answer_types=("application/octet-stream",),
        headers=RANGES,
    ),
    RouteSpec("GET", _ONE, show_file, "One file.", answer=FileObject),
    RouteSpec("DELETE", _ONE, delete_file, "Delete a file.", answer=FileDeleted),
]
