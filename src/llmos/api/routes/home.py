"""/os/v1: the home as a whole: backup, disk, blobs that nobody wants."""

from __future__ import annotations

from llmos.abi.home import BackupReport, DiskReport
from llmos.abi.syscall_jobs import CollectBlobs, ShowDisk
from llmos.api.bodies.jobs import BackupBody
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask
from llmos.errors import Conflict, DiskFull, InvalidRequest
from llmos.shapes.inputs import read_plain


async def back_up(call: Call) -> BackupReport:
    """Answered when the copy is whole."""
    body = read_plain(BackupBody, await read_json(call))
    if not call.is_owner:
        raise InvalidRequest(
            "A path is accepted only over the server's own unix socket, from the server's own "
            "user.",
            param="path",
        )
    return await ask(call, body.to_call(), BackupReport)


async def disk(call: Call) -> DiskReport:
    """What uses the disk, and what is left of it."""
    return await ask(call, ShowDisk(), DiskReport)


async def collect_blobs(call: Call) -> DiskReport:
    """Delete what nothing refers to any more."""
    return await ask(call, CollectBlobs(), DiskReport)


ROUTES = [
    RouteSpec(
        "POST",
        "/os/v1/backup",
        back_up,
        "Copy the home into a folder.",
        body=BackupBody,
        raises=(Conflict, DiskFull),
    ),
    RouteSpec("GET", "/os/v1/disk", disk, "The disk ledger."),
    RouteSpec("POST", "/os/v1/blobs/collect", collect_blobs, "Delete blobs nobody wants."),
]
