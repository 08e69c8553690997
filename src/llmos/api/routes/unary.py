"""The way of every route that is one system call: ask the gate, and return its result."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from llmos.abi.syscall import Body, Done, Result
from llmos.api.call import Call, ClientGone, watching
from llmos.api.wire import DoneAnswer
from llmos.errors import NotFound, ProtocolViolation

R = TypeVar("R", bound=Result)

MAX_PATH_NAME_CHARS = 256


async def ask(call: Call, body: Body, kind: type[R]) -> R:
    """The gate's result, of the kind that answers this call.

    Raises what the gate refused with, ClientGone when nobody waits for the answer any more.
    """
    asking = asyncio.ensure_future(call.edge.gate.call(call.principal, body, call.trace_parent))
    try:
        with watching(call, asking.cancel):
            await asyncio.wait({asking})
    finally:
        asking.cancel()
    if asking.cancelled():
        raise ClientGone
    result = asking.result()
    if not isinstance(result, kind):
        raise ProtocolViolation(f"{type(result).__name__} is no answer to {type(body).__name__}")
    return result


async def done(call: Call, body: Body) -> DoneAnswer:
    """`ask` for something of which there is nothing to tell but that it was done."""
    return DoneAnswer((await ask(call, body, Done)).what)


def ref_of(call: Call, name: str = "ref") -> str:
    """A name out of the path. Raises NotFound for what can name nothing."""
    ref: str = call.scope["path_params"][name]
    if not ref or len(ref) > MAX_PATH_NAME_CHARS or not ref.isprintable():
        raise NotFound("Nothing can have this name.", param=name)
    return ref
