"""Proof of life: the loop takes a step and the store takes a write, asked for and timed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from llmos.errors import LLMOSError

log = logging.getLogger(__name__)


class Vitals:
    """Whether the kernel lives. Everyone who asks while a proof is under way shares it.

    `step` returns after a whole turn of the loop, `write` after a durable write. A proof is good
    for `fresh_s`, one that takes longer than `timeout_s` has failed.
    """

    def __init__(
        self,
        step: Callable[[], Awaitable[None]],
        write: Callable[[], Awaitable[None]],
        *,
        fresh_s: float,
        timeout_s: float,
    ) -> None:
        self._step = step
        self._write = write
        self._fresh_s = fresh_s
        self._timeout_s = timeout_s
        self._proof: asyncio.Task[None] | None = None
        self._proven_s = float("-inf")
        self.problems: list[str] = ["the store was not probed yet"]

    async def check(self) -> list[str]:
        """What is wrong, as of now or at most `fresh_s` ago; nothing: it lives."""
        if time.monotonic() - self._proven_s > self._fresh_s:
            if self._proof is None:
                self._proof = asyncio.get_running_loop().create_task(self._prove())
                self._proof.add_done_callback(self._proved)
            await asyncio.shield(self._proof)
        return self.problems

    def _proved(self, _: asyncio.Task[None]) -> None:
        self._proof = None

    async def _prove(self) -> None:
        found = await asyncio.gather(
            self._try(self._step, "the kernel does not step"),
            self._try(self._write, "the store cannot write"),
        )
        problems = [problem for problem in found if problem]
        if problems and problems != self.problems:
            log.warning("not healthy: %s", "; ".join(problems))
        self.problems = problems
        self._proven_s = time.monotonic()

    async def _try(self, proof: Callable[[], Awaitable[None]], what: str) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await proof()
        except TimeoutError:
            return f"{what}: nothing within {self._timeout_s:g} s"
        except LLMOSError as error:
            return f"{what}: {error}"
        return None
