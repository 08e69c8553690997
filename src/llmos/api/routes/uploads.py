"""/os/v1/uploads: files of a model on their way in, streamed to the sink, never held in memory."""

from __future__ import annotations

import re

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.principal import Action, Resource
from llmos.api.body import body_chunks
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ref_of
from llmos.api.wire import DoneAnswer
from llmos.errors import DiskFull, InvalidRequest

_UPLOAD_ID = re.compile(r"upl_[0-9a-f]{32}")


async def put_file(call: Call) -> BlobRef:
    """Store one file of an upload; the answer has its digest and size."""
    upload_id, filename = _upload_of(call), ref_of(call, "filename")
    config = call.edge.config
    chunks = body_chunks(call, config.max_upload_bytes, config.body_timeout_s)
    ref = await call.edge.sink.write(upload_id, filename, chunks)
    # where it lies on this machine is no business of a client
    return msgspec.structs.replace(ref, path=None)


async def discard(call: Call) -> DoneAnswer:
    """Drop an upload and its bytes, if there are any."""
    upload_id = _upload_of(call)
    await call.edge.sink.discard(upload_id)
    return DoneAnswer(upload_id)


def _upload_of(call: Call) -> str:
    upload_id: str = call.scope["path_params"]["upload_id"]
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise InvalidRequest(
            "An upload's id is `upl_` and 32 hexadecimal digits.", param="upload_id"
        )
    # bytes do not pass the gate, so its question is asked here
    resource = Resource("model", tenant_id=call.principal.tenant_id)
    call.edge.authorizer.authorize(call.principal, Action.WRITE_MODELS, resource)
    return upload_id


ROUTES = [
    RouteSpec(
        "PUT",
        "/os/v1/uploads/{upload_id}/{filename:path}",
        put_file,
        "Upload one file, raw.",
        raises=(DiskFull,),
    ),
    RouteSpec("DELETE", "/os/v1/uploads/{upload_id}", discard, "Drop an upload."),
]
