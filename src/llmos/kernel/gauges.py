"""Gauges: what of the kernel's state metrics show, set now and then."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.kernel.core.replica import Replica, ReplicaState
from llmos.kernel.core.state import State
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics

_AWAKE = frozenset({ReplicaState.READY, ReplicaState.DRAINING})
_PARKED = frozenset({ReplicaState.PARKING, ReplicaState.PARKED, ReplicaState.UNPARKING})


class Gauges:
    """Of requests, replicas and their memory."""

    def __init__(self, state: State, workers: Workers, metrics: Metrics) -> None:
        self._state = state
        self._workers = workers
        self._metrics = metrics

    def set(self) -> None:
        """All of them, as things are now."""
        state, metrics = self._state, self._metrics
        metrics.reserved_bytes.set(state.ledger.reserved_bytes)
        for replica_state in ReplicaState:
            count = sum(r.state is replica_state for r in state.replicas.values())
            metrics.replicas.labels(replica_state).set(count)
        for model_id, model in state.models.items():
            replicas = list(state.replicas_of(model_id))
            num_waiting = len(state.queue(model_id))
            metrics.running.labels(model.ref).set(sum(len(r.running) for r in replicas))
            metrics.waiting.labels(model.ref).set(num_waiting)
            self._set_sleep(model.ref, replicas, num_waiting)
            self._set_kv(model.ref, [r.replica_id for r in replicas])

    def _set_sleep(self, ref: str, replicas: Sequence[Replica], num_waiting: int) -> None:
        metrics = self._metrics
        is_awake = any(r.state in _AWAKE for r in replicas)
        is_parked = not is_awake and any(r.state in _PARKED for r in replicas)
        metrics.sleep_state.labels(ref, "awake").set(is_awake)
        metrics.sleep_state.labels(ref, "weights_offloaded").set(is_parked)
        metrics.sleep_state.labels(ref, "discard_all").set(not is_awake and not is_parked)
        metrics.waiting_by_reason.labels(ref, "capacity").set(num_waiting if is_awake else 0)
        metrics.waiting_by_reason.labels(ref, "deferred").set(0 if is_awake else num_waiting)

    def _set_kv(self, ref: str, replica_ids: Sequence[str]) -> None:
        """Of all replicas of a model together, as they last reported."""
        reports = [self._workers.report_of(replica_id)[1] for replica_id in replica_ids]
        found = [report for report in reports if report is not None]
        reserved_bytes = sum(report.kv_reserved_bytes for report in found)
        used_bytes = sum(report.kv_used_bytes for report in found)
        self._metrics.kv_usage.labels(ref).set(used_bytes / max(1, reserved_bytes))
        cached_bytes = sum(report.kv_cached_bytes for report in found)
        self._metrics.kv_cached_bytes.labels(ref).set(cached_bytes)
