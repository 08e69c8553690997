"""How a model version becomes a replica on this machine: slots, context, threads, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmos.abi.driver import (
    DRAFTED_REQUESTS,
    FEATURES,
    DraftSpec,
    DriverEntry,
    DtypeChoice,
    LoadReport,
    MemoryReport,
    ReplicaSpec,
    Secret,
)
from llmos.abi.footprint import Footprint, FootprintKey, FootprintLog
from llmos.abi.inference import Sampling
from llmos.abi.registry import LoadCost, ModelVersion
from llmos.errors import InvalidRequest, PermissionDenied, UnsupportedParameter
from llmos.kernel.config import KernelConfig
from llmos.kernel.core.admission import in_gib
from llmos.kernel.core.replica import HOST, ModelFacts

MARGIN = 50
"""One part in so many is added to what was measured."""


ROWS, CONTEXT_TOKENS = 16, 8192
"""Up to which `ModelVersion.footprint_bytes` is an upper bound."""

LOGIT_BYTES = 11
"""Of work space for each logit of a row more."""


def with_cost(version: ModelVersion, dtype: str) -> ModelVersion:
    """The version as it is with weights of this type.

    What one takes that was registered before that was known is an upper bound: packed weights are
    no larger than its files', float32 is twice as large as what it replaces and reads.
    """
    cost = version.loads.get(dtype)
    if cost is None and dtype == "float32" and version.dtype in ("bfloat16", "float16"):
        cost = LoadCost(
            version.footprint_bytes + 2 * version.size_bytes, 2 * version.kv_bytes_per_token
        )
    if cost is None:
        return version
    return msgspec.structs.replace(
        version,
        footprint_bytes=cost.footprint_bytes,
        kv_bytes_per_token=cost.kv_bytes_per_token,
    )


def held_bytes(memory: MemoryReport) -> tuple[int, int]:
    """Of the host and of the device, what a worker may come to hold."""
    return max(memory.bound_bytes, memory.rss_bytes), memory.device_bytes


ChooseDtype = Callable[[str, str, str, int], DtypeChoice]
"""The type weights get that is asked for (or `auto`), that the files have, on a device. Raises
InvalidRequest where that cannot be."""


class Placement:
    """Remembers the versions it was asked about, to carry out what is decided about them.

    `budgets` are bytes by device. `cache`: see `ReplicaSpec.cache`; here of all models.
    `min_free_bytes` stay free on the disk.
    """

    def __init__(
        self,
        config: KernelConfig,
        budgets: dict[str, int],
        driver_of: Callable[[str], DriverEntry],
        scratch: Path,
        footprints: FootprintLog,
        *,
        choose_dtype: ChooseDtype,
        cache: Path | None = None,
        min_free_bytes: int = 0,
        find_secret: Callable[[str], Secret | None] = lambda name: None,
        may_reach: Callable[[str], bool] = lambda host: True,
    ) -> None:
        self._config = config
        self._budgets = budgets
        self._driver_of = driver_of
        self._scratch = scratch
        self._footprints = footprints
        self._known = {entry.key: entry for entry in footprints.all()}
        self._versions: dict[str, ModelVersion] = {}
        self._facts: dict[str, ModelFacts] = {}
        self._choose_dtype = choose_dtype
        self._cache = cache
        self._min_free_bytes = min_free_bytes
        self._find_secret = find_secret
        self._may_reach = may_reach
        self._asked: dict[str, str] = {}
        """By model, the type of weights that somebody asked for."""
        self._drafts: dict[str, ModelVersion] = {}
        """By model, what somebody asked to guess ahead for it."""

    def context_length(self, version: ModelVersion) -> int:
        """Tokens of prompt and answer together a request may have. One that is elsewhere holds none
        of them here."""
        if version.egress:
            return version.context_length
        return min(version.context_length, self._config.max_context_tokens)

    def check(self, version: ModelVersion, sampling: Sampling) -> None:
        """Raises UnsupportedParameter for what the version's driver cannot do, PermissionDenied
        for one that is where nobody may reach out to any more."""
        for host in version.egress:
            if not self._may_reach(host):
                raise PermissionDenied(f"{host} is not one of registry.egress", param="model")
        features = self._driver_of(version.driver).features
        for name in FEATURES:
            wanted = getattr(sampling, name)
            if wanted not in (None, []) and name not in features:
                raise UnsupportedParameter(
                    f"{version.ref} runs on the driver {version.driver!r}, which has no {name}",
                    param=name,
                )

    def facts(self, version: ModelVersion) -> ModelFacts:
        """What to reserve: an upper bound, or what it was found to take on this machine. Fewer
        slots when all would not fit the budget."""
        known = self._facts.get(version.model_id)
        if known is None:
            self._versions[version.model_id] = version
            known = self._facts[version.model_id] = self._plan(
                version, self.dtype_of(version), self._drafts.get(version.model_id)
            )
        return known

    def facts_as(
        self, version: ModelVersion, dtype: str | None = None, draft: ModelVersion | None = None
    ) -> ModelFacts:
        """As `facts`, with weights of this type and with this draft model; None: as it stands.

        Raises InvalidRequest for a type it cannot have, and where its driver takes no such draft.
        """
        if draft is not None:
            self._check_draft(version, draft)
        choice = self.dtype_of(version) if dtype is None else self._chosen(version, dtype)
        return self._plan(version, choice, draft or self._drafts.get(version.model_id))

    def _check_draft(self, version: ModelVersion, draft: ModelVersion) -> None:
        if draft.model_id == version.model_id:
            why = f"{version.ref} cannot guess ahead for itself"
        elif not self._driver_of(version.driver).drafts:
            why = f"{version.ref} takes no draft model: none is of use to {version.driver}"
        elif draft.driver != version.driver:
            why = f"{draft.ref} is not read by the driver of {version.ref}, {version.driver}"
        else:
            return
        raise InvalidRequest(why, param="draft")

    def ask_draft(self, version: ModelVersion, draft: ModelVersion | None) -> None:
        """From now on this model guesses ahead for it; None: no model does."""
        if draft is None:
            self._drafts.pop(version.model_id, None)
        else:
            self._drafts[version.model_id] = draft
            self._versions[version.model_id] = version
        self._facts.pop(version.model_id, None)

    def draft_for(self, version: ModelVersion) -> ModelVersion | None:
        """The model that guesses ahead for it, as things stand."""
        return self._drafts.get(version.model_id)

    def ref_of(self, model_id: str) -> str:
        """What people call a model that was asked about."""
        return self._versions[model_id].ref

    def draft_of(self, model: ModelFacts) -> ModelVersion | None:
        """Of a replica."""
        return self._versions[model.draft] if model.draft else None

    def drafted_by(self, draft: ModelVersion) -> list[str]:
        """Ids of models that it was asked to guess ahead for."""
        return [m for m, other in self._drafts.items() if other.model_id == draft.model_id]

    def ask(self, version: ModelVersion, dtype: str | None) -> None:
        """From now on it has weights of this type; None: of the configured one."""
        if dtype is None:
            self._asked.pop(version.model_id, None)
        else:
            self._asked[version.model_id] = dtype
        self._facts.pop(version.model_id, None)

    def dtype_of(self, version: ModelVersion) -> DtypeChoice:
        """The type its weights are loaded in, as things stand, and why."""
        asked = self._asked.get(version.model_id)
        if asked is not None:
            return self._chosen(version, asked)
        try:
            found = self._chosen(version, self._config.dtype)
        except InvalidRequest as error:
            found = self._chosen(version, "auto")
            reason = f"{found.reason}; not kernel.dtype: {error.message}"
            return msgspec.structs.replace(found, reason=reason)
        if self._config.dtype == "auto":
            return found
        return msgspec.structs.replace(found, reason=f"by kernel.dtype: {found.reason}")

    def choice_of(self, model: ModelFacts) -> DtypeChoice:
        """Of a replica's weights."""
        version = self._versions[model.model_id]
        now = self.dtype_of(version)
        return now if now.dtype == model.dtype else self._chosen(version, model.dtype or "auto")

    def _chosen(self, version: ModelVersion, asked: str) -> DtypeChoice:
        if not version.dtype:
            if asked != "auto":
                raise InvalidRequest(f"{version.ref} has no weights in files", param="dtype")
            return DtypeChoice("")
        if asked != "auto" and version.loads and asked not in version.loads:
            able = ", ".join(version.loads)
            raise InvalidRequest(
                f"dtype {asked[:40]!r}: {version.ref} can be loaded as {able}", param="dtype"
            )
        return self._choose_dtype(asked, version.dtype, self._config.device, version.num_parameters)

    def spec(self, model: ModelFacts, replica_id: str) -> tuple[DriverEntry, ReplicaSpec]:
        """What the worker is told, and which driver it runs."""
        version, draft = self._versions[model.model_id], self.draft_of(model)
        spec = ReplicaSpec(
            model_id=version.model_id,
            folder=version.folder,
            scratch=str(self._scratch / replica_id),
            weights_digest=version.digest,
            context_length=self.context_length(version),
            num_slots=model.num_slots,
            num_threads=self._config.num_threads,
            dtype=self._spec_dtype(version, model),
            device=self._config.device,
            options=version.options,
            secrets=self._secrets(version),
            draft=DraftSpec(draft.ref, draft.folder, draft.digest) if draft else None,
            cache="" if self._cache is None else str(self._cache / version.model_id),
            min_free_bytes=self._min_free_bytes,
        )
        return self._driver_of(version.driver), spec

    def _secrets(self, version: ModelVersion) -> dict[str, Secret]:
        """Those that are set now; a driver that lacks one says so."""
        found = {name: self._find_secret(name) for name in version.secrets}
        return {name: secret for name, secret in found.items() if secret is not None}

    def _spec_dtype(self, version: ModelVersion, model: ModelFacts) -> str:
        is_auto = model.dtype == self._chosen(version, "auto").dtype
        return "auto" if is_auto else model.dtype

    def learn(self, model: ModelFacts, report: LoadReport, load_s: float) -> None:
        """From a replica that came up: the next server knows it too."""
        version = self._versions[model.model_id]
        held, device_held = held_bytes(report.memory)
        key = self._key(version, model.num_slots, model.form)
        before = self._known.get(key)
        found = Footprint(
            key,
            bound_bytes=held,
            peak_bytes=max(held, report.memory.peak_bytes),
            load_s=load_s,
            measured_ns=time.time_ns(),
            device_bytes=device_held,
            num_loads=1 if before is None else before.num_loads + 1,
        )
        self._known[key] = found
        self._footprints.learn(found)

    def _key(self, version: ModelVersion, num_slots: int, form: tuple[str, str]) -> FootprintKey:
        """A measurement holds for these alone."""
        dtype, draft = form
        return FootprintKey(
            version.model_id,
            f"{dtype}, draft {draft}" if draft else dtype,
            self._config.device,
            self.context_length(version),
            num_slots,
            version.driver,
            self._driver_of(version.driver).engine,
        )

    def _plan(
        self, version: ModelVersion, choice: DtypeChoice, draft: ModelVersion | None
    ) -> ModelFacts:
        version, dtype = with_cost(version, choice.dtype), choice.dtype
        driver = self._driver_of(version.driver)
        on_host = self._config.device == "cpu" or bool(version.egress)
        form = dtype, draft.model_id if draft else ""
        device = HOST if on_host else self._config.device
        slot_bytes = self.context_length(version) * version.kv_bytes_per_token
        fixed_bytes = version.footprint_bytes + (driver.base_bytes if on_host else 0)
        fixed_bytes += self._wider_bytes(version) + self._draft_bytes(version, draft)
        budget = self._budgets.get(device, 0)
        slots = max(self._config.num_slots, driver.least_slots)
        known = self._known.get(self._key(version, slots, form))
        if slot_bytes and (known is None or _measured(known, device) > budget):
            slots = max(1, min(slots, (budget - fixed_bytes) // slot_bytes))
            known = self._known.get(self._key(version, slots, form))
        need = fixed_bytes + slots * slot_bytes
        host_bytes, device_bytes = (need, 0) if on_host else (driver.base_bytes, need)
        why = self._why(version, driver.base_bytes, slots)
        if draft is not None:
            why += f", draft model {draft.ref} {in_gib(self._draft_bytes(version, draft))}"
        if known is not None:
            host_bytes = min(host_bytes, _measured(known, HOST))
            device_bytes = min(device_bytes, _measured(known, device))
            why = f"as measured at {known.num_loads} loads"
        return ModelFacts(
            version.model_id,
            version.ref,
            host_bytes,
            slots,
            kv_bytes_per_token=version.kv_bytes_per_token,
            snapshots=driver.snapshots,
            parks=driver.parks,
            device=device,
            device_bytes=device_bytes,
            parked_bytes=driver.base_bytes,
            why=why,
            advice=self._advice(version, budget, fixed_bytes),
            dtype=dtype,
            draft=form[1],
        )

    def _draft_bytes(self, version: ModelVersion, draft: ModelVersion | None) -> int:
        """Weights of the type of its files, and KV of as many requests as are guessed for."""
        if draft is None:
            return 0
        self._versions[draft.model_id] = draft
        cost = with_cost(draft, self._chosen(draft, "auto").dtype)
        num_tokens = min(self.context_length(version), draft.context_length)
        num_requests = min(self._config.num_slots, DRAFTED_REQUESTS)
        return cost.footprint_bytes + num_requests * num_tokens * cost.kv_bytes_per_token

    def _wider_bytes(self, version: ModelVersion) -> int:
        """Work space beyond what a footprint counts with: so many rows, such a context."""
        more_rows = max(0, self._config.num_slots - ROWS)
        more_tokens = max(0, self.context_length(version) - CONTEXT_TOKENS)
        per_token = 2 * version.kv_bytes_per_token  # one layer's heads, repeated: far below this
        return more_rows * version.vocab_size * LOGIT_BYTES + more_tokens * per_token

    def _why(self, version: ModelVersion, base_bytes: int, slots: int) -> str:
        context = self.context_length(version)
        kv_bytes = slots * context * version.kv_bytes_per_token
        parts = [f"weights and loading {in_gib(version.footprint_bytes)}"]
        if kv_bytes:
            parts.append(f"keys and values of {slots} x {context} tokens {in_gib(kv_bytes)}")
        parts.append(f"its worker {in_gib(base_bytes)}")
        return ", ".join(parts)

    def _advice(self, version: ModelVersion, budget: int, fixed_bytes: int) -> str:
        """What of it would fit, or which size of model does."""
        left = budget - fixed_bytes
        if version.kv_bytes_per_token and left >= 16 * version.kv_bytes_per_token:
            tokens = left // version.kv_bytes_per_token
            return f"it would fit with kernel.max_context_tokens of {tokens} at most"
        base_bytes = self._driver_of(version.driver).base_bytes
        most = max(0, budget - base_bytes) // 2 / 1.2
        return f"about {most / 1e9:.1f} B parameters in 16 bits would fit"


def _measured(known: Footprint, device: str) -> int:
    """With a margin for what the next load takes more."""
    size = known.peak_bytes if device == HOST else known.device_bytes
    return size + size // MARGIN
