"""/os/v1/models: the registry and residency."""

from __future__ import annotations

import asyncio

from llmos.abi.registry import ModelVersion, PullProgress
from llmos.abi.syscall import (
    ListModels,
    Model,
    ModelList,
    PinModel,
    PullModel,
    QuantizeModel,
    RemoveModel,
    ShowModel,
    UnaliasModel,
    UnloadModel,
)
from llmos.api.bodies.admin import AliasBody, LoadBody, PullBody, QuantizeBody
from llmos.api.body import read_json, read_optional_json
from llmos.api.call import Call, ClientGone, encode_json, watching
from llmos.api.frames import KEEP_ALIVE
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, done, ref_of
from llmos.api.streams import PullStream
from llmos.api.wire import DoneAnswer, to_wire
from llmos.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    LoadFailed,
    ModelRejected,
    ModelTooLarge,
    NotFound,
    OutOfMemory,
    PluginError,
    ProtocolViolation,
)
from llmos.shapes.answers import ErrorAnswer
from llmos.shapes.inputs import read_plain

REMOTE_SCHEMES = ("hf:", "upload:", "openai:")
"""Sources any client may name; another one is a path of this machine."""


async def list_models(call: Call) -> ModelList:
    """Every version, with what the registry knows of it."""
    return await ask(call, ListModels(), ModelList)


async def show_model(call: Call) -> ModelVersion:
    """One version."""
    return (await ask(call, ShowModel(ref_of(call)), Model)).model


async def remove_model(call: Call) -> ModelVersion:
    """Forget a version; the answer is its last record."""
    return (await ask(call, RemoveModel(ref_of(call)), Model)).model


async def alias_model(call: Call) -> ModelVersion:
    """From now on whoever asks for the alias is answered by this version."""
    body = read_plain(AliasBody, await read_json(call)).to_call(ref_of(call))
    return (await ask(call, body, Model)).model


async def unalias_model(call: Call) -> ModelVersion:
    """The alias, which the path names, is nothing any more; the answer is what it was."""
    return (await ask(call, UnaliasModel(ref_of(call)), Model)).model


async def load_model(call: Call) -> DoneAnswer:
    """Answered when the replica is ready."""
    body = read_plain(LoadBody, await read_optional_json(call))
    return await done(call, body.to_call(ref_of(call)))


async def unload_model(call: Call) -> DoneAnswer:
    """Answered when the wish is noted: running requests finish first."""
    return await done(call, UnloadModel(ref_of(call)))


async def pin_model(call: Call) -> DoneAnswer:
    """Answered when the replica is ready; nothing makes it leave from then on."""
    return await done(call, PinModel(ref_of(call)))


async def unpin_model(call: Call) -> DoneAnswer:
    """It stays as long as any other model would."""
    return await done(call, PinModel(ref_of(call), pinned=False))


async def pull_model(call: Call) -> None:
    """Progress as events; a pull refused before any progress is a plain error status."""
    body = read_plain(PullBody, await read_json(call))
    if not body.source.startswith(REMOTE_SCHEMES) and not call.is_owner:
        raise InvalidRequest(
            "A path is accepted only over the server's own unix socket, from the server's own "
            "user. Upload the files (PUT /os/v1/uploads/{id}/{name}) and pull `upload:{id}`.",
            param="source",
        )
    await _stream(call, body.to_call())


async def quantize_model(call: Call) -> None:
    """As `pull_model`, of a model that is here."""
    body = read_plain(QuantizeBody, await read_json(call))
    await _stream(call, body.to_call(ref_of(call)))


async def _stream(call: Call, body: PullModel | QuantizeModel) -> None:
    stream = call.edge.gate.pull(call.principal, body, call.trace_parent)
    try:
        with watching(call, lambda: stream.cancel("client left", ClientGone())):
            first = await _next_or_silence(call, stream)
            await call.start_sse(error_prefix=b"event: error\ndata: ")
            await _relay(call, stream, first)
    finally:
        stream.cancel("answer ended", ClientGone())


async def _relay(call: Call, stream: PullStream, first: list[object] | None) -> None:
    batch = first
    while batch is not None:
        out = b"".join(b"event: progress\ndata: %s\n\n" % encode_json(event) for event in batch)
        await call.write(out or KEEP_ALIVE)
        batch = await _next_or_silence(call, stream)
    if not isinstance(stream.result, Model):
        raise ProtocolViolation("a pull ended without a model")
    done = encode_json(to_wire(stream.result.model))
    await call.write(b"event: done\ndata: %s\n\n" % done, more=False)


async def _next_or_silence(call: Call, stream: PullStream) -> list[object] | None:
    """The next batch, an empty one after a silence, None at the end."""
    timer = asyncio.get_running_loop().call_later(call.edge.config.keepalive_comment_s, stream.poke)
    try:
        return list(await anext(stream))
    except StopAsyncIteration:
        return None
    finally:
        timer.cancel()


_ONE = "/os/v1/models/{ref:path}"
PULL_EVENTS = {"progress": PullProgress, "done": ModelVersion, "error": ErrorAnswer}

ROUTES = [
    RouteSpec("GET", "/os/v1/models", list_models, "Every model version."),
    RouteSpec(
        "POST",
        "/os/v1/models",
        pull_model,
        "Pull a model: events `progress`, then `done` or `error`.",
        body=PullBody,
        events=PULL_EVENTS,
        raises=(ModelRejected, NotFound, Conflict, PluginError, DiskFull),
    ),
    RouteSpec(
        "POST",
        _ONE + "/load",
        load_model,
        "Make a replica resident.",
        body=LoadBody,
        needs_body=False,
        raises=(ModelTooLarge, OutOfMemory, LoadFailed),
    ),
    RouteSpec(
        "POST",
        _ONE + "/quantize",
        quantize_model,
        "Make a quantized version: events `progress`, then `done` or `error`.",
        body=QuantizeBody,
        events=PULL_EVENTS,
        raises=(ModelRejected, Conflict, DiskFull),
    ),
    RouteSpec("POST", _ONE + "/alias", alias_model, "Give a version an alias.", body=AliasBody),
    RouteSpec("DELETE", _ONE + "/alias", unalias_model, "Take an alias away."),
    RouteSpec("POST", _ONE + "/unload", unload_model, "Stop a model's replicas once idle."),
    RouteSpec(
        "POST",
        _ONE + "/pin",
        pin_model,
        "Load a model and keep it resident.",
        raises=(ModelTooLarge, OutOfMemory, LoadFailed),
    ),
    RouteSpec("DELETE", _ONE + "/pin", unpin_model, "Keep a model no longer than any other."),
    RouteSpec("GET", _ONE, show_model, "One model version."),
    RouteSpec("DELETE", _ONE, remove_model, "Forget a model version.", raises=(Conflict,)),
]
