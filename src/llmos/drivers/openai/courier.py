"""Carries requests to the first endpoint that answers. One loop, one task for each request.

Until the first text of an answer has come, whatever fails is tried again: at the next endpoint at
once, and after a round of all of them once more, later. From then on a failure is the request's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from llmos.abi.events import Logprobs
from llmos.abi.remote import RemoteSpec
from llmos.drivers.openai import limits
from llmos.drivers.openai.attempt import Attempt, Reply
from llmos.drivers.openai.backoff import delay_s
from llmos.drivers.openai.breaker import Breaker
from llmos.drivers.openai.faults import Fault
from llmos.errors import LLMOSError, RemoteFailed


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way, for text, or for vectors of `num_items`. `endpoint` is the number of
    the one that is asked or answers."""

    path: str
    body: dict[str, Any]
    num_items: int = 0
    wants_logprobs: bool = False
    flow: asyncio.Event = field(default_factory=asyncio.Event)
    endpoint: int = 0
    has_begun: bool = False
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """Text that has come, with the log-probabilities of its tokens where they were asked for."""

    call: Call
    text: str
    logprobs: list[Logprobs]


@dataclass(frozen=True, slots=True)
class Over:
    """The answer is whole."""

    call: Call
    answer: Reply


@dataclass(frozen=True, slots=True)
class Lost:
    """It will not be."""

    call: Call
    error: LLMOSError


News = Said | Over | Lost


class Courier:
    """Used and closed in one loop. `tell` is called with what happens; after `Over` or `Lost`
    with nothing more of that call. `secrets` are by name."""

    def __init__(
        self,
        spec: RemoteSpec,
        secrets: dict[str, str],
        tell: Callable[[News], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._spec = spec
        self._secrets = secrets
        self._tell = tell
        self._chance = chance
        self._breakers = [Breaker(spec.breaking) for _ in spec.endpoints]
        self._changed = asyncio.Event()
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(
                None, connect=spec.timeouts.connect_s, write=limits.WRITE_TIMEOUT_S
            ),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            headers={"Accept-Encoding": "identity", "User-Agent": "llmos"},
            follow_redirects=False,  # egress is what was declared
            trust_env=False,
        )

    async def close(self) -> None:
        """After every call has ended."""
        await self._client.aclose()

    def states(self) -> list[str]:
        """Of each endpoint, for people."""
        now_s = asyncio.get_running_loop().time()
        return [
            f"{endpoint.host} {breaker.state(now_s)}"
            for endpoint, breaker in zip(self._spec.endpoints, self._breakers, strict=True)
        ]

    async def carry(self, call: Call) -> None:
        """To the end of the answer, whatever that is."""
        try:
            answer = await self._carry(call)
        except Fault as fault:
            error = fault.error
            if isinstance(error, RemoteFailed):
                error.details["begun"] = call.has_begun
            self._tell(Lost(call, error))
        except Exception as error:  # noqa: BLE001  a request never ends the others
            what = f"the remote could not be asked: {type(error).__name__}"
            self._tell(Lost(call, RemoteFailed(what)))
        else:
            self._tell(Over(call, answer))

    async def _carry(self, call: Call) -> Reply:
        loop, retries = asyncio.get_running_loop(), self._spec.retries
        give_up_s = loop.time() + retries.give_up_s
        num_rounds, asked, dead = 0, set[int](), set[int]()
        last: Fault | None = None
        while True:
            number = self._pick(asked | dead, loop.time())
            if number is not None:
                asked.add(number)
                try:
                    return await self._ask(call, number)
                except Fault as fault:
                    last = fault
                if call.has_begun or not (last.again or last.elsewhere):
                    raise last
                if not last.again:
                    dead.add(number)
                continue
            num_rounds += bool(asked)
            wait_s = self._wait_s(dead, loop.time())
            if asked and wait_s is not None:
                wait_s = max(wait_s, delay_s(retries, num_rounds, self._chance()))
            if wait_s is None or num_rounds >= retries.rounds or loop.time() + wait_s > give_up_s:
                raise last or self._unavailable(wait_s)
            await self._rest(wait_s, is_early=not asked)
            asked.clear()

    def _pick(self, passed: set[int], now_s: float) -> int | None:
        """The first endpoint, in their order, that may be asked."""
        for number, breaker in enumerate(self._breakers):
            if number not in passed and not breaker.wait_s(now_s):
                return number
        return None

    def _wait_s(self, dead: set[int], now_s: float) -> float | None:
        """Until the first of those that may still do may be asked; None: there is none."""
        waits = [b.wait_s(now_s) for n, b in enumerate(self._breakers) if n not in dead]
        return min(waits, default=None)

    def _unavailable(self, wait_s: float | None) -> Fault:
        hosts = ", ".join(self._spec.hosts)
        error = RemoteFailed(
            f"{hosts}: failed too often, and is left alone for now",
            retry_after_s=wait_s,
            details={"cause": "unreachable", "host": hosts},
        )
        return Fault(error)

    async def _rest(self, wait_s: float, *, is_early: bool) -> None:
        """`is_early`: no longer than until something is known of an endpoint."""
        if not is_early:
            await asyncio.sleep(wait_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._changed.wait()

    def _learn(self) -> None:
        """Those who rest may look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _ask(self, call: Call, number: int) -> Reply:
        loop, breaker = asyncio.get_running_loop(), self._breakers[number]
        endpoint = self._spec.endpoints[number]
        call.endpoint = number
        is_probe: bool | None = breaker.begin(loop.time())

        def on_text(text: str, logprobs: list[Logprobs]) -> None:
            nonlocal is_probe
            if not call.has_begun:
                call.has_begun = True
                breaker.succeeded(bool(is_probe))
                is_probe = False
                self._learn()
            self._tell(Said(call, text, logprobs))

        attempt = Attempt(
            self._client,
            endpoint,
            self._secrets.get(endpoint.key, ""),
            timeouts=self._spec.timeouts,
            flow=call.flow,
            on_text=on_text,
            num_items=call.num_items,
            wants_logprobs=call.wants_logprobs,
        )
        try:
            answer = await attempt.run(call.path, call.body)
        except Fault as fault:
            if fault.held_s is not None:
                breaker.hold(loop.time(), fault.held_s)
            if fault.blames:
                breaker.failed(loop.time(), bool(is_probe))
            elif fault.held_s is None:
                breaker.succeeded(bool(is_probe))
            else:
                breaker.dropped(bool(is_probe))
            self._learn()
            raise
        except BaseException:
            breaker.dropped(bool(is_probe))
            self._learn()
            raise
        breaker.succeeded(bool(is_probe))
        self._learn()
        return answer
