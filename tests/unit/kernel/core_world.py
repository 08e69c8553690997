"""A world around the pure core: made-up models, requests and workers under a virtual clock."""

from __future__ import annotations

from llmos.abi.events import Aborted, Finished, FinishReason
from llmos.abi.inference import Usage
from llmos.abi.policy import MakePolicy, Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.errors import ErrorInfo, WorkerLost
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.policies import fair
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.state import initial
from llmos.kernel.core.step import step

LOST = WorkerLost("it died").to_info()
GIB = 1 << 30
TUNING = Tuning()


def model(name: str = "m", size: int = GIB, slots: int = 2, **facts: int) -> ModelFacts:
    return ModelFacts(f"mdl_{name}", f"{name}:1", size, slots, **facts)  # type: ignore[arg-type]


def finished(request_id: str) -> Finished:
    return Finished(request_id, FinishReason.STOP, Usage(1, 1))


class World:
    """Feeds events, keeps every decision, and can answer as well-behaved workers would."""

    def __init__(
        self, make: MakePolicy = fair.make, tuning: Tuning = TUNING, **limits: int
    ) -> None:
        defaults = {"memory_budget_bytes": 2 * GIB}
        self.state = initial(Limits(**(defaults | limits)), lambda: make(tuning))
        self.now_ns = 0
        self.num_arrivals = 0
        self.log: list[do.Decision] = []

    def step(self, *events: ev.CoreEvent, after_ns: int = 0) -> list[do.Decision]:
        self.now_ns += after_ns
        decisions = step(self.state, events, self.now_ns)
        self.log += decisions
        return decisions

    def arrive(
        self,
        request_id: str,
        facts: ModelFacts,
        service_class: ServiceClass = ServiceClass.DEFAULT,
        nice: int = 0,
        deadline_ns: int | None = None,
        keep_alive_ns: int | None = None,
        owner: str = "t/p",
        weight: float = 1.0,
        prompt: int = 10,
        max_tokens: int = 0,
    ) -> list[do.Decision]:
        self.num_arrivals += 1
        tenant, _, principal = owner.partition("/")
        waiting = Waiting(
            request_id=request_id,
            arrival=self.num_arrivals,
            ready_ns=self.now_ns,
            service_class=service_class,
            nice=nice,
            tenant_id=tenant,
            principal_id=principal or tenant,
            weight=weight,
            prompt_tokens=prompt,
            expected_tokens=0,
        )
        return self.step(ev.Arrived(waiting, facts, max_tokens, deadline_ns, keep_alive_ns))

    def tokens(self, replica_id: str, **tokens: int) -> list[do.Decision]:
        return self.step(ev.Progressed(replica_id, list(tokens.items())))

    def up(self, replica_id: str, slots: int = 2, used: int = GIB) -> list[do.Decision]:
        return self.step(ev.ReplicaUp(replica_id, slots, used))

    def end(self, request_id: str) -> list[do.Decision]:
        return self.step(ev.Ended(request_id, finished(request_id)))

    def abort(self, request_id: str) -> list[do.Decision]:
        return self.step(ev.Ended(request_id, Aborted(request_id, "asked")))

    def gone(self, replica_id: str, error: ErrorInfo | None = LOST) -> list[do.Decision]:
        return self.step(ev.ReplicaGone(replica_id, error))


def of(kind: type, decisions: list[do.Decision]) -> list:  # type: ignore[type-arg]
    return [decision for decision in decisions if isinstance(decision, kind)]
