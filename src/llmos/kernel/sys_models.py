"""System calls on models: list, show, pull, remove, load, pin, unload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.abi.registry import ModelVersion, PullProgress
from llmos.errors import Conflict, ShuttingDown
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import check_size
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def list_models(kernel: Kernel, call: Call, body: sc.ListModels) -> sc.ModelList:
    """Every version."""
    return sc.ModelList(kernel.registry.list())


async def show_model(kernel: Kernel, call: Call, body: sc.ShowModel) -> sc.Model:
    """One version. Raises ModelNotFound."""
    return sc.Model(kernel.registry.resolve(body.ref))


async def pull_model(kernel: Kernel, call: Call, body: sc.PullModel) -> sc.Model:
    """Emits progress, at most as often as the registry reports it; the version at the end."""

    def progress(step: PullProgress) -> None:
        call.front.send(sc.Emit(call.number, [step]))

    return sc.Model(await kernel.registry.pull(body.source, body.name, progress))


async def remove_model(kernel: Kernel, call: Call, body: sc.RemoveModel) -> sc.Model:
    """Refused while a replica holds it. Raises ModelNotFound, Conflict."""
    version = kernel.registry.resolve(body.ref)
    if kernel.state.replicas_of(version.model_id):
        raise Conflict(f"{version.ref} is loaded: `llmos unload {version.ref}` first")
    return sc.Model(await kernel.registry.remove(body.ref))


async def load_model(kernel: Kernel, call: Call, body: sc.LoadModel) -> sc.Done:
    """Answered when a replica is ready. Raises ModelTooLarge, OutOfMemory, what the load raised."""
    version = kernel.registry.resolve(body.ref)
    keep_ns = None if body.keep_alive_s is None else round(body.keep_alive_s * 1e9)
    await _make_resident(kernel, version, keep_alive_ns=keep_ns)
    return sc.Done(f"{version.ref} is loaded")


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
        return sc.Done(f"{version.ref} is not loaded")
    kernel.loop.post(ev.ModelUnwanted(version.model_id))
    return sc.Done(f"{version.ref} is being unloaded")
