"""How a model version becomes a replica on this machine: slots, context, threads, bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llmos.abi.driver import DriverEntry, ReplicaSpec
from llmos.abi.registry import ModelVersion
from llmos.kernel.config import KernelConfig
from llmos.kernel.core.replica import ModelFacts


class Placement:
    """Remembers the versions it was asked about, to carry out what is decided about them."""

    def __init__(
        self,
        config: KernelConfig,
        budget_bytes: int,
        driver_of: Callable[[str], DriverEntry],
        scratch: Path,
    ) -> None:
        self._config = config
        self._budget_bytes = budget_bytes
        self._driver_of = driver_of
        self._scratch = scratch
        self._versions: dict[str, ModelVersion] = {}
        self._facts: dict[str, ModelFacts] = {}

    def context_length(self, version: ModelVersion) -> int:
        """Tokens of prompt and answer together a request may have."""
        return min(version.context_length, self._config.max_context_tokens)

    def facts(self, version: ModelVersion) -> ModelFacts:
        """What to reserve: an upper bound. Fewer slots when all would not fit the budget."""
        known = self._facts.get(version.model_id)
        if known is None:
            self._versions[version.model_id] = version
            known = self._facts[version.model_id] = self._plan(version)
        return known

    def spec(self, model: ModelFacts, replica_id: str) -> tuple[DriverEntry, ReplicaSpec]:
        """What the worker is told, and which driver it runs."""
        version = self._versions[model.model_id]
        spec = ReplicaSpec(
            model_id=version.model_id,
            folder=version.folder,
            scratch=str(self._scratch / replica_id),
            weights_digest=version.digest,
            context_length=self.context_length(version),
            num_slots=model.num_slots,
            num_threads=self._num_threads(),
            options=version.options,
        )
        return self._driver_of(version.driver), spec

    def _plan(self, version: ModelVersion) -> ModelFacts:
        fixed_bytes = version.footprint_bytes + self._driver_of(version.driver).base_bytes
        slot_bytes = self.context_length(version) * version.kv_bytes_per_token
        slots = self._config.num_slots
        if slot_bytes:
            slots = max(1, min(slots, (self._budget_bytes - fixed_bytes) // slot_bytes))
        return ModelFacts(version.model_id, version.ref, fixed_bytes + slots * slot_bytes, slots)

    def _num_threads(self) -> int:
        """One core is left to the server and its clients.

        An OpenMP region as wide as the machine stalls for milliseconds whenever another process
        wants a core.
        """
        return self._config.num_threads or max(1, len(os.sched_getaffinity(0)) - 1)
