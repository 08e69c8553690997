"""A request's spans, made when it has ended from the decisions about it: nothing is timed twice.

What a span may say is OpenTelemetry's vocabulary for generative AI (`gen_ai.*`) and our own
(`llmos.*`). Prompts and answers are never in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmos.abi.events import Failed, Finished, Terminal
from llmos.abi.inference import UNBOUNDED, Sampling
from llmos.abi.syscall import Decided
from llmos.kernel.counting import PROVIDER, error_of, operation_of
from llmos.kernel.process import Phase, Process
from llmos.telemetry.spans import Moment, Span, Value
from llmos.telemetry.tracer import Trace, child_of

_NAMES = {
    Phase.PREPARING: "llmos.admission",
    Phase.WAITING: "llmos.queue",
    Phase.PAUSED: "llmos.paused",
    Phase.SUSPENDING: "llmos.suspending",
    Phase.SUSPENDED: "llmos.suspended",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """A traced request that has ended: `spans` may be called later, and from another thread."""

    trace: Trace
    name: str
    attributes: dict[str, Value]
    created_ns: int
    created_mono: int
    first_token_ns: int
    ended_ns: int
    history: Sequence[Decided]
    error: str

    def spans(self) -> list[Span]:
        """The request, its stages one after another, and the steps in them."""
        moments = [
            Moment(d.at_ns, f"llmos.{d.state}", {"llmos.reason": d.reason}) for d in self.history
        ]
        root = Span(
            self.trace.context,
            self.name,
            self.created_ns,
            self.ended_ns,
            attributes=self.attributes,
            moments=moments,
            error=self.error,
        )
        stages = list(self._stages())
        return [root, *stages, *self._steps(root, stages)]

    def _stages(self) -> Iterator[Span]:
        for name, start_ns, end_ns in self._intervals():
            if end_ns > start_ns:
                yield Span(child_of(self.trace.context), name, start_ns, end_ns)

    def _intervals(self) -> Iterator[tuple[str, int, int]]:
        """Each phase from the decision that began it to the one that ended it."""
        prepared_ns = self.trace.prepared_ns or self.ended_ns
        yield "llmos.prepare", self.created_ns, prepared_ns
        phase, start_ns = Phase.PREPARING, prepared_ns
        for decided in self.history:
            if decided.state == phase:
                continue
            yield from self._phase(phase, start_ns, decided.at_ns)
            phase, start_ns = Phase(decided.state), decided.at_ns
        yield from self._phase(phase, start_ns, self.ended_ns)

    def _phase(self, phase: Phase, start_ns: int, end_ns: int) -> Iterator[tuple[str, int, int]]:
        if phase is Phase.RUNNING:
            first_ns = self.first_token_ns or end_ns
            yield "llmos.prefill", start_ns, min(end_ns, first_ns)
            yield "llmos.decode", max(start_ns, first_ns), end_ns
        elif phase in _NAMES:
            yield _NAMES[phase], start_ns, end_ns

    def _steps(self, root: Span, stages: Sequence[Span]) -> Iterator[Span]:
        for step in self.trace.steps:
            end_ns = self.created_ns + step.end_mono - self.created_mono
            stage = next((s for s in stages if s.start_ns < end_ns <= s.end_ns), root)
            start_ns = end_ns - int(step.step_s * 1e9)
            told: dict[str, Value] = {"llmos.step.tokens": step.num_tokens}
            yield Span(child_of(stage.context), "llmos.step", start_ns, end_ns, attributes=told)


def ended(process: Process, trace: Trace, event: Terminal) -> Ended:
    """Copies what it needs: the process itself holds its prompt, and may be freed."""
    first_ns = 0
    if process.first_token_mono:
        first_ns = process.created_ns + process.first_token_mono - process.created_mono
    model = process.version.ref
    return Ended(
        trace,
        f"{operation_of(process)} {model}",
        _attributes(process, trace, event),
        process.created_ns,
        process.created_mono,
        first_ns,
        process.ended_ns or process.created_ns,
        list(process.history),
        f"{event.error.code}: {event.error.message}" if isinstance(event, Failed) else "",
    )


def _attributes(process: Process, trace: Trace, event: Terminal) -> dict[str, Value]:
    usage, body = event.usage, process.body
    prompt = process.prepared.num_tokens if process.prepared else 0
    made: dict[str, Value] = {
        "gen_ai.operation.name": operation_of(process),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": body.model,
        "gen_ai.response.model": process.version.ref,
        "gen_ai.response.id": process.request_id,
        "gen_ai.usage.input_tokens": usage.prompt_tokens or prompt,
        "gen_ai.usage.output_tokens": usage.completion_tokens or process.num_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "llmos.request_id": process.request_id,
        "llmos.tenant_id": process.principal.tenant_id,
        "llmos.class": process.service_class.name.lower(),
        "llmos.nice": process.nice,
        "llmos.driver": process.version.driver,
        "llmos.state": str(process.phase),
        "llmos.num_preemptions": process.num_preemptions,
        "llmos.num_suspensions": process.num_suspensions,
        "llmos.num_steps": trace.num_steps,
    }
    made |= _sampling(body.sampling)
    if process.parent_id is not None:
        made["llmos.parent_id"] = process.parent_id
    if isinstance(event, Finished):
        made["gen_ai.response.finish_reasons"] = [str(event.reason)]
    if error := error_of(event):
        made["error.type"] = error
    return made


def _sampling(sampling: Sampling) -> dict[str, Value]:
    made: dict[str, Value] = {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
    }
    if sampling.top_k:
        made["gen_ai.request.top_k"] = sampling.top_k
    if sampling.seed is not None:
        made["gen_ai.request.seed"] = sampling.seed
    if sampling.max_tokens != UNBOUNDED:
        made["gen_ai.request.max_tokens"] = sampling.max_tokens
    return made
