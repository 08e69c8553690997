"""One request inside the native driver: all that a snapshot of it will have to hold."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmos.abi.events import Aborted, Event, Failed, Finished, FinishReason, Tokens
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.text.detokenize import Detokenizer
from llmos.drivers.text.stop import StopStrings
from llmos.errors import InvalidRequest, LLMOSError

if TYPE_CHECKING:
    from llmos.drivers.native.paging import Lease
    from llmos.drivers.native.runner import KVCopy


def tokens_of(packed: bytes) -> list[int]:
    """Token ids of int32, little-endian."""
    tokens = array("i")
    tokens.frombytes(packed)
    return tokens.tolist()


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """Prompt, tokens so far, place of the KV, sampler.

    `order` is its place in the queue. `exact`: it wants deterministic steps; `only_exact`: so far
    it has had no other. `num_cached` tokens of prompt and generation have their KV in
    `slot` (its pages in `lease`, listed in `table`, where the runner has pages), or in `parked`.
    Neither: it has not begun. `num_found` tokens of the prompt had it from others. `to_read`:
    the prompt, and what was generated before where the request is recomputed; the first token is
    drawn after it.
    """

    item: WorkItem
    order: int
    prompt: list[int]
    max_new: int
    eos_ids: frozenset[int]
    exact: bool
    sampler: RowSampler
    stops: StopStrings
    detokenizer: Detokenizer | None
    generated: list[int] = dataclasses.field(default_factory=list)
    num_cached: int = 0
    slot: int | None = None
    parked: KVCopy | None = None
    lease: Lease | None = None
    table: array[int] = dataclasses.field(default_factory=lambda: array("i"))
    num_found: int = 0
    paused: bool = False
    only_exact: bool = True
    to_read: list[int] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.to_read = self.prompt + tokens_of(self.item.generated)

    @property
    def request_id(self) -> str:
        return self.item.request_id

    @property
    def guesses(self) -> bool:
        """Whether it lets its tokens be guessed ahead."""
        return bool(self.item.options.get("guesses", True))

    @property
    def prefilling(self) -> bool:
        return self.num_cached < len(self.to_read)

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt), len(self.generated), self.num_found)

    def known(self, count: int) -> list[int]:
        """The first tokens of prompt and generation."""
        num_prompt = len(self.prompt)
        if count <= num_prompt:
            return self.prompt[:count]
        return self.prompt + self.generated[: count - num_prompt]

    def replay(self, generated: list[int], *, exact: bool) -> Event | None:
        """Take tokens that were said before; the terminal event if the last one ended it.

        `exact`: computing them again gives equal bits.

        Raises InvalidRequest: the answer ended before the last of them.
        """
        self.only_exact = self.only_exact and (exact or not generated)
        for number, token_id in enumerate(generated, 1):
            made = self.accept((token_id,))
            if len(made) > 1 and number < len(generated):
                raise InvalidRequest(
                    f"the answer had ended after {number} of {len(generated)} generated tokens",
                    param="generated",
                )
            if len(made) > 1:
                return made[-1]
        return None

    def accept(self, token_ids: Iterable[int]) -> list[Event]:
        """Take drawn tokens, until one ends it: their event, and the terminal one after the last.

        What was drawn beyond the end is nobody's.
        """
        taken: list[int] = []
        texts: list[str] = []
        for token_id in token_ids:
            taken.append(token_id)
            text, ended = self._take(token_id)
            texts.append(text)
            if ended is not None:
                return [Tokens(self.request_id, taken, "".join(texts)), ended]
        return [Tokens(self.request_id, taken, "".join(texts))]

    def _take(self, token_id: int) -> tuple[str, Finished | None]:
        self.generated.append(token_id)
        self.sampler.note(token_id)
        stop: str | int | None = None
        if token_id in self.item.sampling.stop_token_ids:
            stop = token_id
        if stop is not None or token_id in self.eos_ids:
            return self.stops.flush(), self._finish(FinishReason.STOP, stop)
        text = "" if self.detokenizer is None else self.detokenizer.push((token_id,))
        text = self.stops.push(text)
        if self.stops.matched is not None:
            return text, self._finish(FinishReason.STOP, self.stops.matched)
        if len(self.generated) >= self.max_new:
            return text + self.stops.flush(), self._finish(FinishReason.LENGTH, None)
        return text, None

    def _finish(self, reason: FinishReason, stop: str | int | None) -> Finished:
        return Finished(self.request_id, reason, self.usage, stop, self.only_exact)

    def fail(self, error: LLMOSError) -> Failed:
        """The terminal event of a request that cannot go on."""
        return Failed(self.request_id, error.to_info(), self.usage)

    def end(self, reason: str) -> Aborted:
        """The terminal event of a request that somebody ended."""
        return Aborted(self.request_id, reason, self.usage)


def in_order(prefilling: list[Request], num_steps: int) -> list[Request]:
    """Prompts by class, then arrival; by arrival alone every so many steps."""
    if num_steps % LIMITS.arrival_order_every == 0:
        return sorted(prefilling, key=lambda r: r.order)
    return sorted(prefilling, key=lambda r: (-r.item.service_class, r.order))
