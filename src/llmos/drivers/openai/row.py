"""One request of a remote model: what was asked, what has come, what it costs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from llmos.abi.driver import FEATURES
from llmos.abi.events import Finished, FinishReason, Outputs, Tokens
from llmos.abi.inference import UNBOUNDED, Usage, WorkItem
from llmos.abi.remote import RemoteSpec
from llmos.drivers.items import check_plain
from llmos.drivers.openai.body import make_body
from llmos.drivers.openai.courier import Call, News, Over, Said
from llmos.drivers.openai.pictures import with_images
from llmos.drivers.openai.price import cost_of
from llmos.drivers.openai.prompt import decode, estimate, estimate_chars, unpack
from llmos.drivers.openai.vectors import KIND, PATH, Wanted, make_vectors_body, num_chars
from llmos.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter


@dataclass(slots=True, eq=False)
class Row:
    """`num_prompt` and `num_before` (of an answer that goes on) are estimates, `num_said` counts
    what came: a remote sends a token at a time. `pending` is what came while it was paused."""

    item: WorkItem
    spec: RemoteSpec
    call: Call
    num_prompt: int
    num_before: int
    is_over: bool
    num_said: int = 0
    is_sent: bool = False
    pending: deque[News] = field(default_factory=deque)

    def count(self) -> Usage:
        """As far as it is; nobody else has counted yet."""
        usage = Usage(self.num_prompt, self.num_before + self.num_said)
        if not self.call.has_begun:
            return usage
        asked = Usage(self.num_prompt + self.num_before, self.num_said)
        return msgspec.structs.replace(usage, cost=self._cost(asked))

    def tokens(self, said: list[Said]) -> Tokens:
        """Of what came in one step: each piece is counted as a token, where it does not tell of
        several."""
        counted = sum(max(1, len(piece.logprobs)) for piece in said)
        self.num_said += counted
        text = "".join(piece.text for piece in said)
        logprobs = [one for piece in said for one in piece.logprobs]
        return Tokens(
            self.item.request_id, list(map(ord, text)), text, logprobs or None, counted=counted
        )

    def finished(self, over: Over) -> Finished:
        """What the remote counted, where it did; what it is paid for is what it counted."""
        answer, usage = over.answer, self.count()
        if counted := answer.usage:
            usage = Usage(
                max(0, counted.prompt_tokens - self.num_before),
                counted.completion_tokens + self.num_before,
                counted.cached_tokens,
                self._cost(counted),
            )
        assert answer.reason is not None
        return self._finished(answer.reason, usage, answer.stop)

    def outputs(self, over: Over) -> Outputs | None:
        """Of items; None: it was a text."""
        found = getattr(over.answer, "outputs", None)
        return Outputs(self.item.request_id, found) if found else None

    def ended(self) -> Finished:
        """Of one that was at its end when it came."""
        return self._finished(FinishReason.LENGTH, self.count(), None)

    def _finished(self, reason: FinishReason, usage: Usage, stop: str | int | None) -> Finished:
        deterministic = False if self.num_before else None
        return Finished(self.item.request_id, reason, usage, stop, deterministic)

    def _cost(self, usage: Usage) -> float | None:
        return cost_of(self.spec.endpoints[self.call.endpoint].price, usage)


def make_row(item: WorkItem, spec: RemoteSpec, context_length: int) -> Row:
    """Raises UserError for what cannot be asked of a remote model."""
    for name in item.options:
        raise UnsupportedParameter(f"a remote model has no option {name[:80]!r}", param=name)
    if item.kind not in spec.kinds:
        raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
    if item.kind == KIND:
        return _make_vectors(item, spec)
    check_plain(item, FEATURES)
    prompt, generated = decode(item.tokens), unpack(item.generated, "generated")
    num_prompt = estimate(prompt, spec.chars_per_token)
    num_before = estimate_chars(len(generated), spec.chars_per_token)
    most = item.sampling.max_tokens
    if num_prompt + (1 if most == UNBOUNDED else most) > context_length:
        raise ContextLengthExceeded(f"about {num_prompt} + {most} > {context_length} tokens")
    if most != UNBOUNDED and num_before > most:
        raise InvalidRequest(f"{num_before} tokens generated of {most}", param="generated")
    left = most if most == UNBOUNDED else most - num_before
    is_over = bool(generated) and most != UNBOUNDED and not left
    prompt = with_images(prompt, item)
    path, body = make_body(prompt, item.sampling, spec, generated, left, grammar=item.grammar)
    call = Call(path, body, wants_logprobs=item.sampling.logprobs is not None)
    return Row(item, spec, call, num_prompt, num_before, is_over)


def _make_vectors(item: WorkItem, spec: RemoteSpec) -> Row:
    try:
        wanted = msgspec.json.decode(item.payload, type=Wanted)
    except msgspec.DecodeError:
        raise InvalidRequest("the request is not what `prepare` makes", param="inputs") from None
    call = Call(PATH, make_vectors_body(wanted), len(wanted.inputs))
    return Row(item, spec, call, estimate_chars(num_chars(wanted), spec.chars_per_token), 0, False)
