"""What was traced, as one record each, and the spans of it.

A record is made while others wait, so it only takes down what is known; its spans are made by
whoever exports them. What a span may say is OpenTelemetry's vocabulary for generative AI
(`gen_ai.*`) and our own (`llmos.*`). Prompts and answers are never in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from llmos.abi.inference import UNBOUNDED
from llmos.abi.requests import RequestRow
from llmos.abi.syscall import Decided
from llmos.telemetry.spans import Context, Kind, Moment, Span, Value, child_of

PROVIDER = "llmos"
"""OpenTelemetry's `gen_ai.provider.name`."""

_STAGES = {
    "preparing": "llmos.admission",
    "waiting": "llmos.queue",
    "paused": "llmos.paused",
    "suspending": "llmos.suspending",
    "suspended": "llmos.suspended",
}
"""Of each state but `running`, which is two, and the last ones, which are none."""


class AnswerRecord(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """An answer of the HTTP edge."""

    context: Context
    method: str
    route: str
    status: int
    request_id: str
    begun_ns: int
    ended_ns: int

    def spans(self) -> list[Span]:
        """One."""
        attributes: dict[str, Value] = {
            "http.request.method": self.method,
            "http.route": self.route,
            "http.response.status_code": self.status,
            "llmos.request_id": self.request_id,
        }
        return [
            Span(
                self.context,
                f"{self.method} {self.route}",
                self.begun_ns,
                self.ended_ns,
                kind=Kind.SERVER,
                attributes=attributes,
                error=f"status {self.status}" if self.status >= 500 else "",
            )
        ]


class Step(NamedTuple):
    """One step of its engine that made `num_tokens` of it. `end_mono`: monotonic, in ns."""

    end_mono: int
    step_s: float
    num_tokens: int


class Drawing(NamedTuple):
    """Of `Sampling`, what spans show."""

    temperature: float
    top_p: float
    frequency_penalty: float
    presence_penalty: float
    top_k: int
    seed: int | None
    max_tokens: int

    def attributes(self) -> dict[str, Value]:
        """Those that are set."""
        made: dict[str, Value] = {
            "gen_ai.request.temperature": self.temperature,
            "gen_ai.request.top_p": self.top_p,
            "gen_ai.request.frequency_penalty": self.frequency_penalty,
            "gen_ai.request.presence_penalty": self.presence_penalty,
        }
        if self.top_k:
            made["gen_ai.request.top_k"] = self.top_k
        if self.seed is not None:
            made["gen_ai.request.seed"] = self.seed
        if self.max_tokens != UNBOUNDED:
            made["gen_ai.request.max_tokens"] = self.max_tokens
        return made


class RequestRecord(msgspec.Struct, frozen=True, array_like=True, tag="request"):
    """A request that has ended. `steps` end in monotonic ns, as `created_mono`; `state` is its last
    one; `error_type` is empty for what finished, `error` for what did not fail."""

    context: Context
    row: RequestRow
    created_mono: int
    prepared_ns: int
    num_steps: int
    steps: Sequence[Step]
    history: Sequence[Decided]
    operation: str
    wanted: str
    driver: str
    class_name: str
    nice: int
    state: str
    num_preemptions: int
    num_suspensions: int
    drawing: Drawing
    parent_id: str | None = None
    error_type: str = ""
    error: str = ""

    def spans(self) -> list[Span]:
        """The request, its stages one after another, and the steps in them."""
        moments = [
            Moment(d.at_ns, f"llmos.{d.state}", {"llmos.reason": d.reason}) for d in self.history
        ]
        root = Span(
            self.context,
            f"{self.operation} {self.row.model}",
            self.row.created_ns,
            self.row.ended_ns,
            attributes=self._attributes(),
            moments=moments,
            error=self.error,
        )
        stages = list(self._stages())
        return [root, *stages, *self._steps(root, stages)]

    def _attributes(self) -> dict[str, Value]:
        row = self.row
        made: dict[str, Value] = {
            "gen_ai.operation.name": self.operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": self.wanted,
            "gen_ai.response.model": row.model,
            "gen_ai.response.id": row.request_id,
            "gen_ai.usage.input_tokens": row.prompt_tokens,
            "gen_ai.usage.output_tokens": row.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": row.cached_tokens,
            "llmos.request_id": row.request_id,
            "llmos.tenant_id": row.tenant_id,
            "llmos.class": self.class_name,
            "llmos.nice": self.nice,
            "llmos.driver": self.driver,
            "llmos.state": self.state,
            "llmos.num_preemptions": self.num_preemptions,
            "llmos.num_suspensions": self.num_suspensions,
            "llmos.num_steps": self.num_steps,
            **self.drawing.attributes(),
        }
        if self.parent_id is not None:
            made["llmos.parent_id"] = self.parent_id
        if self.error_type:
            made["error.type"] = self.error_type
        else:
            made["gen_ai.response.finish_reasons"] = (row.outcome,)
        return made

    def _stages(self) -> Iterator[Span]:
        for name, start_ns, end_ns in self._intervals():
            if end_ns > start_ns:
                yield Span(child_of(self.context), name, start_ns, end_ns)

    def _intervals(self) -> Iterator[tuple[str, int, int]]:
        """Each state from the decision that began it to the one that ended it."""
        prepared_ns = self.prepared_ns or self.row.ended_ns
        yield "llmos.prepare", self.row.created_ns, prepared_ns
        state, start_ns = "preparing", prepared_ns
        for decided in self.history:
            if decided.state == state:
                continue
            yield from self._stage(state, start_ns, decided.at_ns)
            state, start_ns = decided.state, decided.at_ns
        yield from self._stage(state, start_ns, self.row.ended_ns)

    def _stage(self, state: str, start_ns: int, end_ns: int) -> Iterator[tuple[str, int, int]]:
        if state == "running":
            first_ns = self.row.first_token_ns or end_ns
            yield "llmos.prefill", start_ns, min(end_ns, first_ns)
            yield "llmos.decode", max(start_ns, first_ns), end_ns
        elif state in _STAGES:
            yield _STAGES[state], start_ns, end_ns

    def _steps(self, root: Span, stages: Sequence[Span]) -> Iterator[Span]:
        for step in self.steps:
            end_ns = root.start_ns + step.end_mono - self.created_mono
            stage = next((s for s in stages if s.start_ns < end_ns <= s.end_ns), root)
            start_ns = end_ns - int(step.step_s * 1e9)
            told: dict[str, Value] = {"llmos.step.tokens": step.num_tokens}
            yield Span(child_of(stage.context), "llmos.step", start_ns, end_ns, attributes=told)


Record = AnswerRecord | RequestRecord

encode = msgspec.msgpack.Encoder().encode
"""A Record as bytes. Raises UnicodeEncodeError for text that is none."""

decode = msgspec.msgpack.Decoder(Record).decode
"""What `encode` made."""
