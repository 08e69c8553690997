"""An answer as it grows: tokens to text, and whether it has ended. Knows no engine."""

from __future__ import annotations

import dataclasses

from llmos.abi.events import Event, Finished, FinishReason, Tokens
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.text.detokenize import Detokenizer
from llmos.drivers.text.stop import StopStrings
from llmos.errors import InvalidRequest


@dataclasses.dataclass(slots=True, eq=False)
class Answer:
    """The tokens of one request's answer, at most `max_new`, until one of `eos_ids`, one of its own
    stop tokens, or a stop string."""

    item: WorkItem
    num_prompt: int
    max_new: int
    eos_ids: frozenset[int]
    stops: StopStrings
    detokenizer: Detokenizer
    generated: list[int] = dataclasses.field(default_factory=list)

    @property
    def usage(self) -> Usage:
        return Usage(self.num_prompt, len(self.generated))

    def accept(self, token_id: int, deterministic: bool | None) -> list[Event]:
        """Take the drawn token: its tokens event, and the terminal one if it was the last."""
        self.generated.append(token_id)
        stop = token_id if token_id in self.item.sampling.stop_token_ids else None
        if stop is not None or token_id in self.eos_ids:
            ended = self._end(FinishReason.STOP, stop, deterministic)
            return [self._tokens(token_id, self.stops.flush()), ended]
        text = self.stops.push(self.detokenizer.push((token_id,)))
        if self.stops.matched is not None:
            ended = self._end(FinishReason.STOP, self.stops.matched, deterministic)
            return [self._tokens(token_id, text), ended]
        if len(self.generated) >= self.max_new:
            ended = self._end(FinishReason.LENGTH, None, deterministic)
            return [self._tokens(token_id, text + self.stops.flush()), ended]
        return [self._tokens(token_id, text)]

    def replay(self, generated: list[int], deterministic: bool | None) -> Event | None:
        """Take tokens that were said before; the terminal event if the last one ended it.

        Raises InvalidRequest: the answer ended before the last of them.
        """
        for number, token_id in enumerate(generated, 1):
            made = self.accept(token_id, deterministic)
            if len(made) > 1 and number < len(generated):
                raise InvalidRequest(
                    f"the answer had ended after {number} of {len(generated)} generated tokens",
                    param="generated",
                )
            if len(made) > 1:
                return made[-1]
        return None

    def _tokens(self, token_id: int, text: str) -> Tokens:
        return Tokens(self.item.request_id, [token_id], text)

    def _end(
        self, reason: FinishReason, stop: str | int | None, deterministic: bool | None
    ) -> Finished:
        return Finished(self.item.request_id, reason, self.usage, stop, deterministic)
