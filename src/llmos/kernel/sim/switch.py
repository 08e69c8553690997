"""Watches the context switch: rows given and taken, requests suspended, held and resumed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmos.abi.suspended import Tier
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import Limits
from llmos.kernel.sim.accounts import Accounts
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.order import Order
from llmos.kernel.sim.seen import Host, Seen
from llmos.kernel.sim.tally import Tally


class Switch:
    """The part of a witness that follows each request from row to row and worker to worker.

    `lost`: who is aborted, and its worker says that it does not know it. `num_failed`: who could
    not be suspended in this step, and so is paused.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        accounts: Accounts,
        order: Order,
        requests: dict[str, Seen],
        hosts: dict[str, Host],
        tally: Tally,
    ) -> None:
        self._limits = limits
        self._accounts = accounts
        self._order = order
        self._open = requests
        self._hosts = hosts
        self._tally = tally
        self._spilling: dict[str, str | None] = {}
        self.begin()

    def begin(self) -> None:
        """A new step."""
        self._back: list[Seen] = []
        self._off: list[Host] = []
        self._paused: dict[str, list[Seen]] = {}
        self._relaunch: set[str] = set()
        self._survivors: list[str] = []
        self._spent: set[str] = set()
        self._must: list[tuple[str, tuple[type, ...]]] = []
        self.lost: set[str] = set()
        self.num_failed = 0

    # what the core is told

    def told(self, event: ev.CoreEvent) -> bool:
        """False: it is not about this."""
        if isinstance(event, ev.Progressed):
            self._progressed(event)
            return True
        if not isinstance(event, _EVENTS):
            return False
        seen = self._open.get(event.request_id)
        if seen is None:
            return True
        if isinstance(event, ev.RequestHeld | ev.RequestReleased):
            self._operated(seen, event)
        elif isinstance(event, ev.SnapshotLost):
            self._lost(seen)
        elif isinstance(event, ev.Spilled):
            owner = self._spilling.pop(event.request_id, None)
            is_there = owner == seen.memory_owner and seen.replica_id is None
            if event.error is None and is_there and owner is not None:
                self._free_memory(seen)
        elif seen.is_leaving and not seen.is_aborted:
            self._answered(seen, event)
        return True

    def _progressed(self, event: ev.Progressed) -> None:
        if (host := self._hosts.get(event.replica_id)) is None:
            return
        for request_id, num_tokens in event.tokens:
            seen = self._open.get(request_id)
            if seen is not None and seen.replica_id == event.replica_id:
                host.has_made = host.has_moved = True
                seen.num_tokens += num_tokens
                self._spend(seen)

    def _spend(self, seen: Seen) -> None:
        """Its snapshot is of no use any more."""
        if seen.has_snapshot:
            self._must.append((seen.request_id, (do.DropSnapshot,)))
            self._free_memory(seen)
        seen.has_snapshot, seen.num_resumes = False, 0

    def _free_memory(self, seen: Seen) -> None:
        self._tally.free(seen.memory_owner or "")
        seen.memory_owner = None

    def drained(self) -> None:
        """The server stops: whoever is held may end here. (None of them outlives it.)"""
        for seen in list(self._open.values()):
            self._operated(seen, ev.RequestReleased(seen.request_id))

    def _operated(self, seen: Seen, event: ev.RequestHeld | ev.RequestReleased) -> None:
        if seen.is_aborted or seen.is_held == isinstance(event, ev.RequestHeld):
            return
        seen.is_held = not seen.is_held
        if not seen.is_held and seen.is_leaving:
            seen.may_come_first = seen.has_run
        self._order.leave(seen)
        if seen.is_held and not seen.is_leaving:
            kind = do.HoldRequest if seen.replica_id is None else do.SuspendRow
            self._must.append((seen.request_id, (kind, do.Close)))
        elif not seen.is_held and seen.replica_id is None:
            self._must.append((seen.request_id, (do.Requeue, do.Close)))
            seen.comes_first = seen.may_come_first = seen.has_run
            self._back.append(seen)
            if seen.has_run:
                self._accounts.back(seen.request_id)

    def _lost(self, seen: Seen) -> None:
        host = self._hosts.get(seen.replica_id or "")
        if seen.is_aborted:
            self.lost.add(seen.request_id)
            self._must.append((seen.request_id, (do.Close,)))
            return
        self._spend(seen)
        if host is None or seen.is_leaving:
            return
        if seen.request_id in host.running:
            self._relaunch.add(seen.request_id)
            self._must.append((seen.request_id, (do.Dispatch,)))
        else:
            self._leave(seen, host)

    def _answered(self, seen: Seen, event: ev.CoreEvent) -> None:
        """It was suspended, or was not."""
        host = self._hosts[seen.replica_id or ""]
        if isinstance(event, ev.SuspendFailed) and event.error.code != "not_found":
            self.num_failed += 1
            self._lose_leaving(seen)
            host.leaving.discard(seen.request_id)
            host.parked.add(seen.request_id)
            seen.is_leaving = False
            self._tally.pause(seen.request_id, seen.model, seen.context_tokens, is_forced=True)
            self._back.append(seen)
            self._accounts.back(seen.request_id)
            if seen.is_held:
                self._must.append((seen.request_id, (do.RefuseHold,)))
            return
        size = event.size_bytes if isinstance(event, ev.Suspended) else None
        if isinstance(event, ev.SuspendFailed):
            self._lose_leaving(seen)
        if size is None:
            self._spend(seen)
        self._free_memory(seen)
        seen.has_snapshot, seen.num_resumes = size is not None, 0
        seen.memory_owner, seen.leaving_owner = seen.leaving_owner, None
        if seen.memory_owner is not None:
            self._tally.measure(seen.memory_owner, "host", size or 0)
        self._leave(seen, host)

    def _lose_leaving(self, seen: Seen) -> None:
        self._tally.free(seen.leaving_owner or "")
        seen.leaving_owner = None

    def _leave(self, seen: Seen, host: Host, *, from_row: bool = False) -> None:
        """On no worker from now on."""
        for there in (host.running, host.parked, host.leaving):
            there.discard(seen.request_id)
        self._tally.free(f"kv:{seen.request_id}")
        seen.replica_id, seen.is_leaving = None, False
        self._off.append(host)
        self._back.append(seen)
        self._accounts.back(seen.request_id, from_row=from_row)
        kind = do.HoldRequest if seen.is_held else do.Requeue
        self._must.append((seen.request_id, (kind, do.Close)))

    def worker_died(self, host: Host) -> None:
        """Who has a snapshot that holds goes on; the others end."""
        for request_id in host.requests:
            seen = self._open[request_id]
            if not seen.outlives:
                seen.replica_id = "gone"
                continue
            self._lose_leaving(seen)
            self._survivors.append(request_id)
            self._leave(seen, host, from_row=request_id in host.running)

    def recount(self, now_ns: int) -> None:
        """Of what was told, now that the time is known."""
        for host in self._off:
            host.idle_since_ns = now_ns
        for seen in self._back:
            if seen.has_run:
                self._order.back(seen, now_ns)
            else:
                self._order.rejoin(seen, now_ns)

    # what the core decides

    def see(self, decision: do.Decision, now_ns: int) -> None:
        """One about a request that has been accepted, and has not ended. Raises Violation."""
        if isinstance(decision, do.Dispatch):
            self._dispatch(decision, now_ns)
        elif isinstance(decision, do.PauseRow | do.UnpauseRow | do.SuspendRow | do.AbortRow):
            seen, host = self._on_row(decision)
            if isinstance(decision, do.PauseRow):
                self._pause(decision, seen, host, now_ns)
            elif isinstance(decision, do.UnpauseRow):
                self._unpause(decision, seen, host, now_ns)
            elif isinstance(decision, do.SuspendRow):
                self._suspend(decision, seen, host)
            else:
                self._order.leave(seen)
                seen.is_aborted = True
        elif isinstance(decision, do.HoldRequest | do.Requeue | do.RefuseHold):
            self._answer(decision)
        elif isinstance(decision, do.SpillSnapshot):
            seen = self._open[decision.request_id]
            demand(decision.request_id not in self._spilling, "moved to the disk twice at once")
            demand(seen.memory_owner is not None and seen.replica_id is None, "nothing to move")
            self._spilling[decision.request_id] = seen.memory_owner
        elif isinstance(decision, do.DropSnapshot):
            seen = self._open[decision.request_id]
            demand(not seen.has_snapshot, "a snapshot is dropped that still holds")

    def _on_row(
        self, decision: do.PauseRow | do.UnpauseRow | do.SuspendRow | do.AbortRow
    ) -> tuple[Seen, Host]:
        demand(decision.request_id in self._open, "a decision about a request that has ended")
        seen = self._open[decision.request_id]
        demand(seen.replica_id == decision.replica_id, "a row of another replica")
        demand(decision.replica_id in self._hosts, f"{decision.replica_id} does not exist")
        return seen, self._hosts[decision.replica_id]

    def _dispatch(self, decision: do.Dispatch, now_ns: int) -> None:
        request_id, replica_id = decision.request_id, decision.replica_id
        demand(request_id in self._open, "a decision about a request that has ended")
        demand(replica_id in self._hosts, f"{replica_id} does not exist")
        seen, host = self._open[request_id], self._hosts[replica_id]
        demand(decision.resumes == seen.has_run, "begun twice, or resumed before it began")
        demand(not seen.is_held, "runs though it is held")
        demand(not seen.is_stalled, "runs though nobody reads")
        if request_id in self._relaunch:
            self._relaunch.discard(request_id)
            demand(seen.replica_id == replica_id, "computed again elsewhere")
            return
        demand(seen.replica_id is None, "dispatched twice")
        is_away = host.is_stopping or host.is_parking or host.is_parked or host.is_unparking
        demand(host.is_up and not is_away, "dispatched to a replica that is not ready")
        demand(host.model_id == seen.model_id, "dispatched to another model")
        self._order.judge(seen, replica_id)
        if seen.has_run:
            seen.num_resumes += 1
        self._take_row(decision, seen, host, now_ns)
        seen.replica_id, seen.has_run = replica_id, True

    def _take_row(
        self, decision: do.Dispatch | do.UnpauseRow, seen: Seen, host: Host, now_ns: int
    ) -> None:
        for victim in self._paused.pop(decision.replica_id, []):
            is_higher = seen.waiting.service_class > victim.waiting.service_class
            if is_higher and not victim.is_on_credit and victim is not seen:
                victim.num_taken += 1
                victim.comes_first = True
                most = self._limits.max_preemptions
                demand(victim.num_taken <= most, "its row was taken once too often")
        if not host.is_draining:
            self._order.judge_first(seen, decision.replica_id)
        host.running.add(seen.request_id)
        demand(len(host.running) <= host.num_slots, "more rows than there are")
        self._accounts.runs(decision, len(host.running), host.num_slots, now_ns)

    def _pause(self, decision: do.PauseRow, seen: Seen, host: Host, now_ns: int) -> None:
        request_id = decision.request_id
        demand(request_id in host.running, "paused without a row")
        host.running.discard(request_id)
        host.parked.add(request_id)
        self._accounts.paused(request_id, now_ns)
        if decision.kind is not do.Pause.SUSPENDED:
            is_forced = decision.kind is do.Pause.STALLED
            self._tally.pause(request_id, seen.model, seen.context_tokens, is_forced=is_forced)
            self._order.back(seen, now_ns)
        else:
            self._must.append((request_id, (do.SuspendRow,)))
        # in turn: it may have had its row on credit in between, which no decision says
        is_taken = decision.kind in (do.Pause.PREEMPTED, do.Pause.SUSPENDED)
        is_taken = is_taken and not host.is_draining
        if is_taken and not seen.is_held and not seen.is_stalled:
            self._paused.setdefault(decision.replica_id, []).append(seen)
        seen.may_come_first = decision.kind in (do.Pause.PREEMPTED, do.Pause.SUSPENDED)

    def _unpause(self, decision: do.UnpauseRow, seen: Seen, host: Host, now_ns: int) -> None:
        request_id = decision.request_id
        self._order.leave(seen)
        demand(request_id in host.parked, "unpaused without being paused")
        demand(not seen.is_stalled, "runs though nobody reads")
        demand(not seen.is_held, "runs though it is held")
        host.parked.discard(request_id)
        self._tally.free(f"kv:{request_id}")
        self._take_row(decision, seen, host, now_ns)

    def _suspend(self, decision: do.SuspendRow, seen: Seen, host: Host) -> None:
        demand(seen.request_id in host.parked, "suspended from its row, or twice")
        demand((decision.tier is not None) == seen.model.snapshots, "a snapshot its driver lacks")
        self._order.leave(seen)
        host.parked.discard(seen.request_id)
        host.leaving.add(seen.request_id)
        seen.is_leaving = True
        seen.num_suspensions += 1
        if host.is_draining:
            seen.may_come_first = True
            is_moved = decision.reason.startswith("its model gives way")
            seen.comes_first = is_moved and not (seen.is_held or seen.is_stalled)
        if decision.tier is Tier.MEMORY:
            seen.leaving_owner = f"snapshot:{seen.request_id}:{seen.num_suspensions}"
            self._tally.write(seen.leaving_owner, seen.model, seen.context_tokens)

    def _answer(self, decision: do.HoldRequest | do.Requeue | do.RefuseHold) -> None:
        """To an operator, or to its reader."""
        seen = self._open[decision.request_id]
        if isinstance(decision, do.RefuseHold):
            demand(seen.is_held and seen.replica_id is not None, "a hold refused that nobody asked")
            seen.is_held = False
            return
        demand(seen.replica_id is None, "it is still on its worker")
        demand(seen.is_held == isinstance(decision, do.HoldRequest), "held, or not held")

    def closed(self, seen: Seen) -> None:
        """Whatever it held is free."""
        self._tally.free(f"kv:{seen.request_id}")
        self._free_memory(seen)
        self._lose_leaving(seen)

    def end(self, decisions: Sequence[do.Decision], failing: Collection[str]) -> None:
        """Of the step: what had to be decided was. `failing`: models that nobody waits for now."""
        made = {(getattr(d, "request_id", ""), type(d)) for d in decisions}
        for request_id, kinds in self._must:
            names = " or ".join(kind.__name__ for kind in kinds)
            is_made = any((request_id, kind) in made for kind in kinds)
            demand(is_made, f"{request_id} lacks a {names}")
        for decision in decisions:
            if isinstance(decision, do.Close) and decision.request_id in self._survivors:
                error = getattr(decision.event, "error", None)
                is_lost = error is not None and error.code == "worker_lost" and not failing
                demand(not is_lost, "it ended with its worker, and its snapshot holds")


_EVENTS = (
    ev.Suspended,
    ev.SuspendFailed,
    ev.SnapshotLost,
    ev.Spilled,
    ev.RequestHeld,
    ev.RequestReleased,
)
