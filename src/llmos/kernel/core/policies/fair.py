"""Fair: inside a class every tenant gets its share, inside a tenant every principal its own."""

from __future__ import annotations

from llmos.abi.policy import Policy, Tuning, Waiting
from llmos.kernel.core.policies.classes import ByClass
from llmos.kernel.core.policies.order import KeyOrder, due_key
from llmos.kernel.core.policies.shares import Shares


class FairOrder:
    """Two levels of shares, then the due key. A tenant weighs as much as its weightiest key."""

    takes_turns = True

    def __init__(self, tuning: Tuning) -> None:
        self._key = due_key(tuning.nice_step_ns)
        self._tenants = Shares()
        self._principals: dict[str, Shares] = {}
        self._queues: dict[tuple[str, str], KeyOrder] = {}
        self._num_of_tenant: dict[str, int] = {}
        self._num_flows_of: dict[str, int] = {}
        self._where: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._where

    def join(self, waiting: Waiting) -> None:
        self._tenants.enter(waiting.tenant_id, waiting.weight)
        self._shares_in(waiting.tenant_id).enter(waiting.principal_id, waiting.weight)

    def leave(self, waiting: Waiting) -> None:
        tenant = waiting.tenant_id
        self._tenants.exit(tenant)
        self._principals[tenant].exit(waiting.principal_id)
        if not self._principals[tenant].num_open:
            del self._principals[tenant]  # nobody is left to be owed anything

    def push(self, waiting: Waiting) -> None:
        tenant, principal = waiting.tenant_id, waiting.principal_id
        flow = (tenant, principal)
        self._where[waiting.request_id] = flow
        if flow not in self._queues:
            self._queues[flow] = KeyOrder(self._key)
            self._num_flows_of[tenant] = self._num_flows_of.get(tenant, 0) + 1
        self._queues[flow].push(waiting)
        self._num_of_tenant[tenant] = self._num_of_tenant.get(tenant, 0) + 1
        self._tenants.activate(tenant)
        self._principals[tenant].activate(principal)

    def remove(self, request_id: str) -> None:
        flow = self._where.pop(request_id, None)
        if flow is not None:
            self._queues[flow].remove(request_id)
            self._left(flow)

    def peek(self) -> Waiting:
        return self._queues[self._next_flow()].peek()

    def pop(self) -> Waiting:
        flow = self._next_flow()
        waiting = self._queues[flow].pop()
        del self._where[waiting.request_id]
        self._left(flow)
        return waiting

    def charge(self, waiting: Waiting, tokens: float) -> None:
        self._tenants.charge(waiting.tenant_id, tokens)
        self._principals[waiting.tenant_id].charge(waiting.principal_id, tokens)

    def prefers(self, waiting: Waiting, running: Waiting, is_over: bool) -> str | None:
        """Whose tenant, or whose principal, has had less; among equals they take turns.

        Who was due first need not wait for the end of a slice.
        """
        if not is_over and self._key(waiting) >= self._key(running):
            return None
        whose = self._whose(waiting, running)
        if whose is None:
            return None
        if is_over:
            return f"its slice is over, and a request {whose} waits"
        return f"a request that was due sooner waits, {whose}"

    def _whose(self, waiting: Waiting, running: Waiting) -> str | None:
        """Of whom the waiting one is, beside the running one; None: of one who has had more."""
        tenant = waiting.tenant_id
        if tenant != running.tenant_id:
            who, shares = "tenant", self._tenants
            had, has = (shares.counter(w.tenant_id) for w in (waiting, running))
        elif waiting.principal_id != running.principal_id:
            who, shares = "principal", self._principals[tenant]
            had, has = (shares.counter(w.principal_id) for w in (waiting, running))
        else:
            return "of the same principal"
        if had > has:
            return None
        return f"of a {who} served {'less' if had < has else 'as much'}"

    def num_ahead(self, newcomer: Waiting) -> int:
        """Its principal's own, and as many of each other one; then the same among the tenants.

        As if all weighed the same and had had as much.
        """
        tenant = newcomer.tenant_id
        flow = self._queues.get((tenant, newcomer.principal_id))
        num_own = 0 if flow is None else len(flow)
        num_others = self._num_flows_of.get(tenant, 0) - (flow is not None)
        num_of_tenant = self._num_of_tenant.get(tenant, 0)
        num_own = min(num_of_tenant, num_own + (num_own + 1) * num_others)
        num_others = len(self._num_of_tenant) - (num_of_tenant > 0)
        return min(len(self), num_own + (num_own + 1) * num_others)

    def _next_flow(self) -> tuple[str, str]:
        tenant = self._tenants.first()
        return tenant, self._principals[tenant].first()

    def _shares_in(self, tenant: str) -> Shares:
        return self._principals.setdefault(tenant, Shares())

    def _left(self, flow: tuple[str, str]) -> None:
        tenant, principal = flow
        if not len(self._queues[flow]):
            del self._queues[flow]
            self._principals[tenant].deactivate(principal)
            self._num_flows_of[tenant] -= 1
        self._num_of_tenant[tenant] -= 1
        if not self._num_of_tenant[tenant]:
            del self._num_of_tenant[tenant], self._num_flows_of[tenant]
            self._tenants.deactivate(tenant)


def make(tuning: Tuning) -> Policy:
    """The default policy."""
    return ByClass(lambda: FairOrder(tuning), tuning)
