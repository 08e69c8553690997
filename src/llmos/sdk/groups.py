"""Methods made of pure functions, blocking and not, and groups of them.

The signature and docstring of a method are those of its function, less the first argument: the two
clients differ only in how they run it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from llmos.sdk.config import ClientConfig
from llmos.sdk.transport import AsyncTransport, Transport
from llmos.sdk.wire import Call

P = ParamSpec("P")
T = TypeVar("T")


def _dress(method: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Give a method its function's name, docstring and signature, less the first argument."""
    functools.update_wrapper(method, build)
    signature = inspect.signature(build)
    parameters = list(signature.parameters.values())[1:]
    method.__dict__["__signature__"] = signature.replace(parameters=parameters)


class _HasTransport(Protocol):
    _transport: Transport


class _HasAsyncTransport(Protocol):
    _transport: AsyncTransport


class Sync(Generic[P, T]):
    """A blocking method made of a pure function."""

    def __init__(self, build: Callable[Concatenate[ClientConfig, P], Call[T]]) -> None:
        self._build = build

    def __get__(self, group: _HasTransport, owner: object = None) -> Callable[P, T]:
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            transport = group._transport
            return transport.run(self._build(transport.config, *args, **kwargs))

        _dress(method, self._build)
        return method


class Async(Generic[P, T]):
    """An awaitable method made of a pure function."""

    def __init__(self, build: Callable[Concatenate[ClientConfig, P], Call[T]]) -> None:
        self._build = build

    def __get__(
        self, group: _HasAsyncTransport, owner: object = None
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            transport = group._transport
            return await transport.run(self._build(transport.config, *args, **kwargs))

        _dress(method, self._build)
        return method


class Group:
    """Calls that belong together, over a client's transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class AsyncGroup:
    """Calls that belong together, over a client's transport."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
