"""Moves the bytes of calls over httpx, once blocking and once not. Knows no route and no shape."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Generic, Self, TypeVar

import httpx

from llmos import __version__
from llmos.errors import (
    InvalidRequest,
    LLMOSError,
    ProtocolViolation,
    ServerUnreachable,
    StorageError,
)
from llmos.sdk.config import ClientConfig
from llmos.sdk.locate import Endpoint
from llmos.sdk.wire import (
    Call,
    FileBody,
    Parser,
    Patience,
    Request,
    StreamCall,
    error_from_answer,
)

T = TypeVar("T")


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turns what httpx raises into the tree's own errors."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise ServerUnreachable(f"no server answers at {where} ({error})") from error
    except httpx.TimeoutException as error:
        raise ServerUnreachable(f"the server at {where} stopped answering") from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        message = f"the connection to {where} broke before the answer was complete ({error})"
        raise ServerUnreachable(message) from error
    except httpx.DecodingError as error:
        raise ProtocolViolation(f"the server's answer cannot be read: {error}") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise InvalidRequest(f"{where} cannot be asked: {error}", param="url") from error


def _check_socket(endpoint: Endpoint) -> None:
    """Says it better than the system would."""
    if endpoint.socket is not None and not endpoint.socket.exists():
        raise ServerUnreachable(f"no server runs for {endpoint.home}")


def _probe_socket(endpoint: Endpoint, timeout_s: float) -> None:
    """Connects once: where nobody listens, httpcore's blocking side leaves its socket open."""
    if endpoint.socket is None:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(str(endpoint.socket))
        except OSError as error:
            message = f"no server answers at {endpoint.where} ({error.strerror or error})"
            raise ServerUnreachable(message) from error


def _options(endpoint: Endpoint) -> dict[str, Any]:
    """Arguments of either httpx client. Nothing local is ever sent through a proxy."""
    headers = {"user-agent": f"llmos/{__version__}", "accept-encoding": "identity"}
    if endpoint.api_key:
        headers["authorization"] = f"Bearer {endpoint.api_key}"
    url = httpx.URL(endpoint.url)
    is_local = endpoint.socket is not None or url.host in {"localhost", "127.0.0.1", "::1"}
    return {"base_url": url, "headers": headers, "trust_env": not is_local}


def _verify(endpoint: Endpoint) -> bool:
    return endpoint.url.startswith("https:")  # loading certificates takes 30 ms


def _arguments(config: ClientConfig, request: Request) -> dict[str, Any]:
    silence_s = {
        Patience.SHORT: config.read_timeout_s,
        Patience.LONG: config.long_timeout_s,
        Patience.STREAM: config.stream_timeout_s,
    }[request.patience]
    headers = trace_headers() | dict(request.headers)
    if isinstance(body := request.body, FileBody):
        headers["content-type"] = body.content_type
        headers["content-length"] = str(len(body.head) + body.size_bytes + len(body.tail))
    elif request.body is not None:
        headers.setdefault("content-type", "application/json")
    return {
        "method": request.method,
        "url": request.path,
        "headers": headers,
        "timeout": httpx.Timeout(silence_s, connect=config.connect_timeout_s),
    }


def trace_headers() -> dict[str, str]:
    """What makes a request part of the caller's trace, if the caller's program traces with
    OpenTelemetry: it has imported it then, and we never do."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    flags = int(context.trace_flags)
    return {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"}


def _refusal(response: httpx.Response, body: bytes) -> LLMOSError:
    return error_from_answer(response.status_code, body, response.headers.get("retry-after"))


@contextlib.contextmanager
def _readable(body: FileBody) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{body.path} cannot be read: {error.strerror}") from error


class Stream(Generic[T]):
    """Items as they arrive. Iterate once; leaving it early (`close`, `with`) ends the request."""

    def __init__(self, response: httpx.Response, parser: Parser[T], where: str) -> None:
        self._response = response
        self._items = self._read(parser, where)

    def _read(self, parser: Parser[T], where: str) -> Generator[T]:
        try:
            with translated(where):
                for data in self._response.iter_bytes():
                    yield from parser.feed(data)
            parser.finish()
        finally:
            self._response.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def show(self) -> Any:
        """Watch it to its end: pieces of text as they come on a terminal, an answer or curves that
        grow in a notebook. Returns all of it: an `Answer`, or of a job's log the `Run`."""
        from llmos.sdk.live import show

        with self:
            return show(self)

    def _ipython_display_(self) -> None:
        self.show()  # the last line of a notebook's cell

    def close(self) -> None:
        """Leave the stream; the server ends the request. Idempotent."""
        self._items.close()
        self._response.close()


class Transport:
    """Runs calls one after another, blocking. Safe to share between threads, as httpx is."""

    def __init__(
        self, endpoint: Endpoint, config: ClientConfig, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.endpoint = endpoint
        self.config = config
        self._is_given = transport is not None
        self._is_probed = self._is_given
        if transport is None and endpoint.socket is not None:
            transport = httpx.HTTPTransport(uds=str(endpoint.socket), verify=False)
        with translated(endpoint.where):
            self._http = httpx.Client(
                transport=transport, verify=_verify(endpoint), **_options(endpoint)
            )

    def run(self, call: Call[T]) -> T:
        """The call's value. Raises what the server answered, ServerUnreachable, InvalidRequest."""
        response = self._send(call.request, call.accepts)
        reader = call.reader()
        with contextlib.closing(response), translated(self.endpoint.where):
            for data in response.iter_bytes():
                reader.feed(data)
        return reader.finish()

    def open(self, call: StreamCall[T]) -> Stream[T]:
        """The call's stream, once the server has accepted it."""
        response = self._send(call.request, frozenset())
        return Stream(response, call.parser(), self.endpoint.where)

    def run_steps(self, steps: Generator[Call[Any], Any, T]) -> T:
        """Run a generator of calls to its end, giving it each answer or error."""
        answer: Any = None
        resume = steps.send
        while True:
            try:
                call = resume(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                answer, resume = self.run(call), steps.send
            except BaseException as error:  # noqa: BLE001 - handed to the steps, which raise it
                answer, resume = error, steps.throw

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._http.close()

    def _send(self, request: Request, accepts: frozenset[int]) -> httpx.Response:
        if not self._is_given:
            _check_socket(self.endpoint)
        if not self._is_probed:
            _probe_socket(self.endpoint, self.config.connect_timeout_s)
            self._is_probed = True
        body = request.body
        content = self._pieces(body) if isinstance(body, FileBody) else body
        with translated(self.endpoint.where):
            built = self._http.build_request(content=content, **_arguments(self.config, request))
            response = self._http.send(built, stream=True)
            if response.is_success or response.status_code in accepts:
                return response
            with contextlib.closing(response):
                error = b""
                for data in response.iter_bytes():
                    error = (error + data)[: self.config.max_error_bytes]
                    if len(error) == self.config.max_error_bytes:
                        break
            raise _refusal(response, error)

    def _pieces(self, body: FileBody) -> Iterator[bytes]:
        if body.head:
            yield body.head
        with _readable(body), body.path.open("rb") as file:
            while data := file.read(self.config.upload_chunk_bytes):
                yield data
                body.sent(len(data))
        if body.tail:
            yield body.tail


class AsyncStream(Generic[T]):
    """`Stream` for asyncio: `async for`, `async with`, `await aclose()`."""

    def __init__(self, response: httpx.Response, parser: Parser[T], where: str) -> None:
        self._response = response
        self._items = self._read(parser, where)

    async def _read(self, parser: Parser[T], where: str) -> AsyncGenerator[T]:
        try:
            with translated(where):
                async for data in self._response.aiter_bytes():
                    for item in parser.feed(data):
                        yield item
            parser.finish()
        finally:
            await self._response.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def show(self) -> Any:
        """As `Stream.show`."""
        from llmos.sdk.live import show_async

        async with self:
            return await show_async(self)

    async def aclose(self) -> None:
        """Leave the stream; the server ends the request. Idempotent."""
        await self._items.aclose()
        await self._response.aclose()


class AsyncTransport:
    """`Transport` for asyncio: the same calls, awaited."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: ClientConfig,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.config = config
        self._is_given = transport is not None
        if transport is None and endpoint.socket is not None:
            transport = httpx.AsyncHTTPTransport(uds=str(endpoint.socket), verify=False)
        with translated(endpoint.where):
            self._http = httpx.AsyncClient(
                transport=transport, verify=_verify(endpoint), **_options(endpoint)
            )

    async def run(self, call: Call[T]) -> T:
        """The call's value. Raises what the server answered, ServerUnreachable, InvalidRequest."""
        response = await self._send(call.request, call.accepts)
        reader = call.reader()
        async with contextlib.aclosing(response):
            with translated(self.endpoint.where):
                async for data in response.aiter_bytes():
                    reader.feed(data)
        return reader.finish()

    async def open(self, call: StreamCall[T]) -> AsyncStream[T]:
        """The call's stream, once the server has accepted it."""
        response = await self._send(call.request, frozenset())
        return AsyncStream(response, call.parser(), self.endpoint.where)

    async def run_steps(self, steps: Generator[Call[Any], Any, T]) -> T:
        """Run a generator of calls to its end, giving it each answer or error."""
        answer: Any = None
        resume = steps.send
        while True:
            try:
                call = resume(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                answer, resume = await self.run(call), steps.send
            except BaseException as error:  # noqa: BLE001 - handed to the steps, which raise it
                answer, resume = error, steps.throw

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._http.aclose()

    async def _send(self, request: Request, accepts: frozenset[int]) -> httpx.Response:
        if not self._is_given:
            _check_socket(self.endpoint)
        body = request.body
        content = self._pieces(body) if isinstance(body, FileBody) else body
        with translated(self.endpoint.where):
            built = self._http.build_request(content=content, **_arguments(self.config, request))
            response = await self._http.send(built, stream=True)
            if response.is_success or response.status_code in accepts:
                return response
            async with contextlib.aclosing(response):
                error = b""
                async for data in response.aiter_bytes():
                    error = (error + data)[: self.config.max_error_bytes]
                    if len(error) == self.config.max_error_bytes:
                        break
            raise _refusal(response, error)

    async def _pieces(self, body: FileBody) -> AsyncIterator[bytes]:
        if body.head:
            yield body.head
        with _readable(body), await asyncio.to_thread(body.path.open, "rb") as file:
            while data := await asyncio.to_thread(file.read, self.config.upload_chunk_bytes):
                yield data
                body.sent(len(data))
        if body.tail:
            yield body.tail
