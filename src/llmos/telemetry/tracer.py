"""Who is traced, and where spans go. A server without traces has no Tracer at all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from llmos.telemetry.spans import Context, new_span_id, parent_of
from llmos.telemetry.traced import Record, Step


class Tracer:
    """`give` takes what is to be exported; it never waits and never fails.

    A caller who sends a trace context has decided whether it is sampled; of the others, `ratio`
    (0 to 1) are. `max_steps`: engine steps shown of one request.
    """

    def __init__(self, give: Callable[[Record], None], *, ratio: float, max_steps: int) -> None:
        self.give = give
        self.max_steps = max_steps
        self._ratio = ratio

    def begin(self, trace_parent: str | None) -> Context:
        """A new span's context: a child of `trace_parent`, which is well-formed, or a new root."""
        if trace_parent is not None:
            trace_id, span_id, is_sampled = parent_of(trace_parent)
            return Context(trace_id, new_span_id(), span_id, is_sampled)
        ids = random.randbytes(24).hex()  # all zero, which is no id, comes once in 2**64
        return Context(ids[:32], ids[32:], is_sampled=random.random() < self._ratio)


@dataclass(slots=True)
class Trace:
    """What is noted of a traced request while it lives. `prepared_ns` is UTC."""

    context: Context
    max_steps: int
    prepared_ns: int = 0
    num_steps: int = 0
    steps: list[Step] = field(default_factory=list)

    def step(self, end_mono: int, step_s: float, num_tokens: int) -> None:
        """Of very many steps, the first are kept and all are counted."""
        self.num_steps += 1
        if len(self.steps) < self.max_steps:
            self.steps.append(Step(end_mono, step_s, num_tokens))


def begin(tracer: Tracer | None, trace_parent: str | None) -> Trace | None:
    """None for a request that is not traced."""
    if tracer is None:
        return None
    context = tracer.begin(trace_parent)
    return Trace(context, tracer.max_steps) if context.is_sampled else None
