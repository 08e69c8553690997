"""What clients ask for: calls with their times, made up or read, and who sends them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from llmos.abi.principal import ServiceClass

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its client sends it. `at_ns` is from the start of the trace; the client does
    not tell the server `output_tokens`, which is how long the answer will turn out to be.
    """

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    tenant: str = "tenant-1"
    principal: str = ""
    service_class: ServiceClass = ServiceClass.DEFAULT
    model: str = "model"
    nice: int = 0
    weight: float = 1.0
    max_tokens: int = 0
    deadline_ns: int | None = None


def poisson(
    rng: random.Random,
    num_calls: int,
    rate_per_s: float,
    prompt_tokens: float = 128.0,
    output_tokens: float = 128.0,
) -> Iterator[Call]:
    """Poisson arrivals; lengths are exponential with these means, at least 1."""
    at_s = 0.0
    for _ in range(num_calls):
        at_s += rng.expovariate(rate_per_s)
        yield Call(
            round(at_s * NS),
            1 + round(rng.expovariate(1.0 / prompt_tokens)),
            1 + round(rng.expovariate(1.0 / output_tokens)),
        )


def assign(
    calls: Iterable[Call],
    rng: random.Random,
    tenants: Sequence[float] = (),
    classes: Sequence[tuple[ServiceClass, float]] = (),
) -> Iterator[Call]:
    """Give calls of a trace that names neither a tenant and a class, drawn in these proportions."""
    names = [f"tenant-{i + 1}" for i in range(len(tenants))]
    kinds = [kind for kind, _ in classes]
    parts = [part for _, part in classes]
    for call in calls:
        tenant = rng.choices(names, tenants)[0] if names else call.tenant
        kind = rng.choices(kinds, parts)[0] if kinds else call.service_class
        yield replace(call, tenant=tenant, service_class=kind)


def hurry(calls: Iterable[Call], speed: float) -> Iterator[Call]:
    """The same calls `speed` times as fast."""
    for call in calls:
        yield replace(call, at_ns=round(call.at_ns / speed))
