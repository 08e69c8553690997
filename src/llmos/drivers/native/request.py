"""One request inside the native driver: all that a snapshot of it will have to hold."""

# ruff: noqa: N803 (tensor names carry their shape)
from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmos.abi.events import (
    Aborted,
    Event,
    Failed,
    Finished,
    FinishReason,
    Logprobs,
    TokenLogprob,
    Tokens,
)
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.sampling import RowSampler, priced
from llmos.drivers.native.sight import Sight, open_sight
from llmos.drivers.text.detokenize import Detokenizer
from llmos.drivers.text.stop import StopStrings
from llmos.errors import InvalidRequest, LLMOSError

if TYPE_CHECKING:
    import torch

    from llmos.drivers.native.kv import KVCopy
    from llmos.drivers.native.paging import Lease


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
    Neither: it has not begun. `num_found` tokens of the prompt had it from others; its first
    `num_virtual` are an adapter's. `to_read`: the prompt, and what was
    generated before where the request is recomputed; the first token is drawn after it.
    `piece_of`: the bytes that a token stands for. `scored`: of a request that wants
    log-probabilities of its prompt, those of the tokens read so far but the first. `sight`: its
    images.
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
    piece_of: Callable[[int], bytes] | None = None
    generated: list[int] = dataclasses.field(default_factory=list)
    num_cached: int = 0
    slot: int | None = None
    parked: KVCopy | None = None
    lease: Lease | None = None
    table: array[int] = dataclasses.field(default_factory=lambda: array("i"))
    num_found: int = 0
    num_virtual: int = 0
    paused: bool = False
    only_exact: bool = True
    to_read: list[int] = dataclasses.field(init=False)
    sight: Sight | None = dataclasses.field(init=False)
    scored: list[Logprobs] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.to_read = self.prompt + tokens_of(self.item.generated)
        self.sight = open_sight(self.item, len(self.prompt))

    @property
    def turn(self) -> int:
        """Where RoPE turns the next token to: its number, but for what its images lag behind."""
        return self.num_cached - (self.sight.lag if self.sight else 0)

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
    def scores_prompt(self) -> bool:
        """Whether it reads all of its prompt itself, and wants to know how likely that is."""
        return self.item.sampling.prompt_logprobs is not None

    @property
    def salt(self) -> str:
        """What it shares what it reads by; one that scores its prompt shares nothing."""
        own = f"{self.item.cache_salt}\0{self.request_id}"
        return own if self.scores_prompt else self.item.cache_salt

    def score(self, logits_NV: torch.Tensor) -> None:
        """Rows are those after the tokens that are being read, from `num_cached` on."""
        hidden = max(0, self.num_virtual - self.num_cached)
        begin = self.num_cached + hidden + 1
        tokens = self.prompt[begin : begin + len(logits_NV) - hidden]
        most = self.item.sampling.prompt_logprobs or 0
        self.scored += [
            Logprobs(self._priced(token, logprob), [self._priced(*other) for other in top])
            for token, logprob, top in priced(logits_NV[hidden:], tokens, most)
        ]

    def reread(self) -> None:
        """Forget what was read of it: scores of a prompt are not kept with its KV."""
        self.num_cached, self.parked, self.scored = 0, None, []
        self.to_read = self.prompt + self.generated

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt) - self.num_virtual, len(self.generated), self.num_found)

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
        ended: Finished | None = None
        for token_id in token_ids:
            taken.append(token_id)
            text, ended = self._take(token_id)
            texts.append(text)
            if ended is not None:
                break
        said = Tokens(self.request_id, taken, "".join(texts), self._logprobs(taken))
        return [said] if ended is None else [said, ended]

    def _logprobs(self, taken: list[int]) -> list[Logprobs] | None:
        """Of tokens that have a text, or did not end the answer."""
        if self.item.sampling.logprobs is None:
            return None
        recorded, self.sampler.recorded = self.sampler.recorded, []
        return [
            Logprobs(self._priced(token, logprob), [self._priced(*other) for other in top])
            for token, (drawn, logprob, top) in zip(taken, recorded, strict=False)
            if token == drawn and not self._is_end(token)
        ]

    def _priced(self, token_id: int, logprob: float) -> TokenLogprob:
        piece = b"" if self.piece_of is None else self.piece_of(token_id)
        return TokenLogprob(token_id, piece, logprob)

    def _is_end(self, token_id: int) -> bool:
        return token_id in self.eos_ids or token_id in self.item.sampling.stop_token_ids

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
        grammar = self.sampler.grammar
        if grammar is not None and grammar.is_over:
            return text + self.stops.flush(), self._finish(FinishReason.STOP, None)
        if len(self.generated) >= self.max_new:
            return text + self.stops.flush(), self._finish(FinishReason.LENGTH, None)
        return text, None

    def _finish(self, reason: FinishReason, stop: str | int | None) -> Finished:
        told = None
        if self.scores_prompt:
            first = self.prompt[self.num_virtual]
            told = [Logprobs(self._priced(first, 0.0), []), *self.scored]
        return Finished(
            self.request_id, reason, self.usage, stop, self.only_exact, prompt_logprobs=told
        )

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
