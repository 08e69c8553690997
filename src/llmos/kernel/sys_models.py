"""System calls on models: list, show, pull, remove, load, pin, unload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llmos.abi import syscall as sc
from llmos.abi.registry import ModelVersion, PullProgress
from llmos.errors import Conflict, LLMOSError, ShuttingDown
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import check_size
from llmos.kernel.core.replica import Replica, ReplicaState
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def list_models(kernel: Kernel, call: Call, body: sc.ListModels) -> sc.ModelList:
    """Every version."""
    return sc.ModelList(kernel.registry.list())


async def show_model(kernel: Kernel, call: Call, body: sc.ShowModel) -> sc.Model:
    """One version, and what its weights are or would be in memory. Raises ModelNotFound."""
    version = kernel.registry.resolve(body.ref)
    choice = kernel.placement.dtype_of(version)
    loaded_as = "; ".join([f"{choice.dtype}: {choice.reason}", *choice.warnings])
    return sc.Model(msgspec.structs.replace(version, loaded_as=loaded_as if choice.dtype else ""))


async def pull_model(kernel: Kernel, call: Call, body: sc.PullModel) -> sc.Model:
    """Emits progress, at most as often as the registry reports it; the version at the end."""

    def progress(step: PullProgress) -> None:
        call.front.send(sc.Emit(call.number, [step]))

    version = await kernel.registry.pull(body.source, body.name, progress, body.options)
    return sc.Model(version)


async def quantize_model(kernel: Kernel, call: Call, body: sc.QuantizeModel) -> sc.Model:
    """As `pull_model`, of a version that is here. Raises Conflict, ModelRejected, DiskFull."""

    def progress(step: PullProgress) -> None:
        call.front.send(sc.Emit(call.number, [step]))

    return sc.Model(await kernel.registry.quantize(body.ref, body.to, body.name, progress))


async def remove_model(kernel: Kernel, call: Call, body: sc.RemoveModel) -> sc.Model:
    """Refused while a replica holds it. Raises ModelNotFound, Conflict."""
    version = kernel.registry.resolve(body.ref)
    if kernel.state.replicas_of(version.model_id):
        raise Conflict(f"{version.ref} is loaded: `llmos unload {version.ref}` first")
    return sc.Model(await kernel.registry.remove(body.ref))


async def load_model(kernel: Kernel, call: Call, body: sc.LoadModel) -> sc.Done:
    """Answered when a replica is ready. Raises ModelTooLarge, OutOfMemory, what the load raised;
    InvalidRequest for a dtype it cannot have, Conflict while it is there with another one."""
    version = kernel.registry.resolve(body.ref)
    keep_ns = None if body.keep_alive_s is None else round(body.keep_alive_s * 1e9)
    if body.dtype is not None:
        await _load_as(kernel, version, body.dtype, keep_ns)
    else:
        await _make_resident(kernel, version, keep_alive_ns=keep_ns)
    return sc.Done(_loaded(kernel, version))


async def _load_as(kernel: Kernel, version: ModelVersion, dtype: str, keep_ns: int | None) -> None:
    wanted = kernel.placement.facts_as(version, dtype)
    _require_dtype(kernel, version, wanted.dtype)
    if too_large := check_size(kernel.state, wanted):
        raise too_large
    kernel.placement.ask(version, dtype)
    try:
        await _make_resident(kernel, version, keep_alive_ns=keep_ns)
    except LLMOSError:
        if not _staying(kernel, version):
            kernel.placement.ask(version, None)
        raise
    _require_dtype(kernel, version, wanted.dtype)  # others may have asked meanwhile


def _staying(kernel: Kernel, version: ModelVersion) -> list[Replica]:
    """Those that the next request may find: not what an unload has told to go."""
    leaving = (ReplicaState.DRAINING, ReplicaState.STOPPING)
    return [
        replica
        for replica in kernel.state.replicas_of(version.model_id)
        if replica.state not in leaving or replica.is_to_park
    ]


def _require_dtype(kernel: Kernel, version: ModelVersion, dtype: str) -> None:
    for replica in _staying(kernel, version):
        if replica.model.dtype != dtype:
            raise Conflict(
                f"{version.ref} is loaded as {replica.model.dtype}: "
                f"`llmos unload {version.ref}` first",
                param="dtype",
            )


def _loaded(kernel: Kernel, version: ModelVersion) -> str:
    """What was done, and what there is to know about it."""
    choice = kernel.placement.dtype_of(version)
    as_dtype = f" as {choice.dtype}" if choice.dtype else ""
    warnings = list(choice.warnings)
    for replica in _staying(kernel, version):
        if report := kernel.effects.loads.get(replica.replica_id):
            warnings += report.warnings
    return "; ".join([f"{version.ref} is loaded{as_dtype}", *warnings])


async def pin_model(kernel: Kernel, call: Call, body: sc.PinModel) -> sc.Done:
    """As `load_model`. It stays until it is unpinned or unloaded, or the server ends."""
    version = kernel.registry.resolve(body.ref)
    if not body.pinned:
        kernel.loop.post(ev.ModelUnpinned(version.model_id))
        return sc.Done(f"{version.ref} is not pinned any more")
    await _make_resident(kernel, version, pin=True)
    return sc.Done(f"{version.ref} is pinned")


async def _make_resident(
    kernel: Kernel, version: ModelVersion, *, pin: bool = False, keep_alive_ns: int | None = None
) -> None:
    if kernel.draining:
        raise ShuttingDown("the server is stopping")
    facts = kernel.placement.facts(version)
    if too_large := check_size(kernel.state, facts):
        raise too_large
    resident = kernel.when_resident(version.model_id)
    kernel.loop.post(ev.ModelWanted(facts, pin, keep_alive_ns))
    await resident


async def unload_model(kernel: Kernel, call: Call, body: sc.UnloadModel) -> sc.Done:
    """Running requests finish first; this call does not wait for them."""
    version = kernel.registry.resolve(body.ref)
    is_wanted = version.model_id in kernel.state.wanted
    if not is_wanted and not kernel.state.replicas_of(version.model_id):
        kernel.placement.ask(version, None)
        return sc.Done(f"{version.ref} is not loaded")
    kernel.placement.ask(version, None)
    kernel.loop.post(ev.ModelUnwanted(version.model_id))
    return sc.Done(f"{version.ref} is being unloaded")
