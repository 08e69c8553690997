"""One request inside the native driver: all that a snapshot of it will have to hold."""

from __future__ import annotations

import dataclasses
from array import array

from llmos.abi.events import Aborted, Event, Failed, Finished, FinishReason, Tokens
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.native.kv import ParkedKV
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.text.detokenize import Detokenizer
from llmos.drivers.text.stop import StopStrings
from llmos.errors import InvalidRequest, LLMOSError


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
    `slot`, or in `parked`. Neither: it has not begun. `to_read`: the prompt, and what was generated
    before where the request is recomputed; the first token is drawn after it.
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
    parked: ParkedKV | None = None
    paused: bool = False
    only_exact: bool = True
    to_read: list[int] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.to_read = self.prompt + tokens_of(self.item.generated)

    @property
    def request_id(self) -> str:
        return self.item.request_id

    @property
    def prefilling(self) -> bool:
        return self.num_cached < len(self.to_read)

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt), len(self.generated))

    def replay(self, generated: list[int]) -> Event | None:
        """Take tokens that were said before; the terminal event if the last one ended it.

        Raises InvalidRequest: the answer ended before the last of them.
        """
        self.only_exact = self.only_exact and not generated
        for number, token_id in enumerate(generated, 1):
            made = self.accept(token_id)
            if len(made) > 1 and number < len(generated):
                raise InvalidRequest(
                    f"the answer had ended after {number} of {len(generated)} generated tokens",
                    param="generated",
                )
            if len(made) > 1:
                return made[-1]
        return None

    def accept(self, token_id: int) -> list[Event]:
        """Take the drawn token: its tokens event, and the terminal one if it was the last."""
        self.generated.append(token_id)
        self.sampler.note(token_id)
        stop: str | int | None = None
        if token_id in self.item.sampling.stop_token_ids:
            stop = token_id
        if stop is not None or token_id in self.eos_ids:
            return self._finish(token_id, self.stops.flush(), FinishReason.STOP, stop)
        text = "" if self.detokenizer is None else self.detokenizer.push((token_id,))
        text = self.stops.push(text)
        if self.stops.matched is not None:
            return self._finish(token_id, text, FinishReason.STOP, self.stops.matched)
        if len(self.generated) >= self.max_new:
            return self._finish(token_id, text + self.stops.flush(), FinishReason.LENGTH, None)
        return [Tokens(self.request_id, [token_id], text)]

    def _finish(
        self, token_id: int, text: str, reason: FinishReason, stop: str | int | None
    ) -> list[Event]:
        return [
            Tokens(self.request_id, [token_id], text),
            Finished(self.request_id, reason, self.usage, stop, self.only_exact),
        ]

    def fail(self, error: LLMOSError) -> Failed:
        """The terminal event of a request that cannot go on."""
        return Failed(self.request_id, error.to_info(), self.usage)

    def end(self, reason: str) -> Aborted:
        """The terminal event of a request that somebody ended."""
        return Aborted(self.request_id, reason, self.usage)
