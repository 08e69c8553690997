"""One try at one endpoint: a request, and its answer piece by piece."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from llmos.abi.events import Logprobs
from llmos.abi.remote import Endpoint, Timeouts
from llmos.drivers.openai import faults, limits
from llmos.drivers.openai.answer import Answer
from llmos.drivers.openai.backoff import retry_after_s
from llmos.drivers.openai.faults import Fault, failed
from llmos.drivers.openai.sse import DataDecoder, TooLong
from llmos.drivers.openai.vectors import Vectors

Reply = Answer | Vectors
OK = 200
TAIL_S = 0.2
"""After the last event, until the connection is known to be free for the next request."""


class Attempt:
    """Asks, and tells each text that comes, while `flow` is set. Raises Fault.

    `on_text(text, logprobs)` is called in the loop; the first time is when the answer has begun.
    `num_items`: that many vectors are asked for, and no text. `wants_logprobs`: an answer without
    them is none.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        endpoint: Endpoint,
        secret: str,
        *,
        timeouts: Timeouts,
        flow: asyncio.Event,
        on_text: Callable[[str, list[Logprobs]], None],
        num_items: int = 0,
        wants_logprobs: bool = False,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._host = endpoint.host
        self._secrets = [secret] if secret else []
        self._timeouts = timeouts
        self._flow = flow
        self._on_text = on_text
        self._num_items = num_items
        self._wants_logprobs = wants_logprobs
        self._has_begun = False
        self._num_chars = 0

    async def run(self, path: str, body: dict[str, Any]) -> Reply:
        """To the end."""
        answer: Reply = Answer(self._host, self._secrets, wants_logprobs=self._wants_logprobs)
        if self._num_items:
            answer = Vectors(self._host, self._secrets, self._num_items)
        clock = asyncio.timeout(self._timeouts.first_token_s)
        try:
            async with clock:
                await self._exchange(path, body, answer, clock)
        except TimeoutError:
            if answer.has_ended():
                return answer
            what = "said nothing more in time" if self._has_begun else "did not begin in time"
            raise Fault(failed("timeout", self._host, what)) from None
        except TooLong:
            raise Fault(failed("broken", self._host, "sent an event without an end")) from None
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise Fault(failed("unreachable", self._host, "cannot be reached")) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
            if answer.reason is None:
                raise Fault(failed("broken", self._host, "broke the connection off")) from None
        if answer.reason is None:
            raise Fault(failed("broken", self._host, "ended before the answer did"))
        return answer

    async def _exchange(
        self, path: str, body: dict[str, Any], answer: Reply, clock: asyncio.Timeout
    ) -> None:
        endpoint = self._endpoint
        content = json.dumps(body | endpoint.extra | {"model": endpoint.model}).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._secrets:
            headers["Authorization"] = f"Bearer {self._secrets[0]}"
        url = self._endpoint.url.rstrip("/") + path
        stream = self._client.stream("POST", url, content=content, headers=headers)
        async with stream as response:
            if response.status_code != OK:
                raise await self._refusal(response)
            kind = response.headers.get("content-type", "").lower()
            if "html" in kind:
                raise Fault(failed("broken", self._host, "answered a page of HTML"))
            if "json" in kind:
                data = await self._read(response, limits.MAX_BODY_BYTES)
                self._tell(answer.take_whole(data), answer.take_logprobs())
                return
            await self._listen(response.aiter_bytes(), answer, clock)

    async def _listen(
        self, chunks: AsyncIterator[bytes], answer: Reply, clock: asyncio.Timeout
    ) -> None:
        decoder, loop = DataDecoder(limits.MAX_EVENT_BYTES), asyncio.get_running_loop()
        async for chunk in chunks:
            if answer.has_ended():
                continue
            heard = False
            for data in decoder.feed(chunk):
                heard = True
                self._tell(answer.take(data), answer.take_logprobs())
                if answer.has_ended():
                    break
            if not self._flow.is_set():  # nobody reads: the remote is made to wait
                clock.reschedule(None)
                await self._flow.wait()
                heard = True
            if answer.has_ended():
                clock.reschedule(loop.time() + TAIL_S)
            elif self._has_begun and heard:  # a comment that keeps the line open is no token
                clock.reschedule(loop.time() + self._timeouts.between_tokens_s)

    def _tell(self, text: str, logprobs: list[Logprobs]) -> None:
        if text or logprobs:
            self._has_begun = True
            self._num_chars += len(text)
            if self._num_chars > limits.MAX_ANSWER_CHARS:
                raise Fault(failed("broken", self._host, "does not come to an end"))
            self._on_text(text, logprobs)

    async def _refusal(self, response: httpx.Response) -> Fault:
        body = await self._read(response, limits.MAX_ERROR_BYTES, is_cut=True)
        held_s = retry_after_s(response.headers.get("retry-after"), time.time())
        return faults.of_status(response.status_code, body, self._host, held_s, self._secrets)

    async def _read(self, response: httpx.Response, most: int, *, is_cut: bool = False) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > most:
                if is_cut:
                    break
                raise Fault(failed("broken", self._host, f"answered more than {most} bytes"))
        return bytes(data[:most])
