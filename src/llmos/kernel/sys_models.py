"""System calls on models: list, show, pull, remove, alias, load, pin, unload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llmos.abi import syscall as sc
from llmos.abi.principal import Action, Resource
from llmos.abi.registry import ModelVersion, PullProgress
from llmos.errors import Conflict, LLMOSError, ShuttingDown
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import check_size
from llmos.kernel.core.replica import ModelFacts, Replica, ReplicaState
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
    said = [f"{choice.dtype}: {choice.reason}", *choice.warnings]
    if draft := kernel.placement.draft_for(version):
        said.append(f"{draft.ref} guesses ahead for it")
    loaded_as = "; ".join(said)
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
    drafted = kernel.placement.drafted_by(version) + [
        replica.model.model_id
        for replica in kernel.state.replicas.values()
        if replica.model.draft == version.model_id
    ]
    if drafted:
        other = kernel.placement.ref_of(drafted[0])
        raise Conflict(f"{version.ref} guesses ahead for {other}: `llmos unload {other}` first")
    return sc.Model(await kernel.registry.remove(body.ref))


async def alias_model(kernel: Kernel, call: Call, body: sc.AliasModel) -> sc.Model:
    """Promotion: who asks for the alias is answered by this version from now on; requests that run
    stay with theirs. Raises ModelNotFound, InvalidRequest."""
    by = call.principal.name
    return sc.Model(await kernel.registry.set_alias(body.ref, body.alias, body.reason, by))


async def unalias_model(kernel: Kernel, call: Call, body: sc.UnaliasModel) -> sc.Model:
    """Raises ModelNotFound, InvalidRequest (it is no alias that was given)."""
    return sc.Model(await kernel.registry.drop_alias(body.ref))


async def load_model(kernel: Kernel, call: Call, body: sc.LoadModel) -> sc.Done:
    """Answered when a replica is ready. Raises ModelTooLarge, OutOfMemory, what the load raised;
    InvalidRequest for a dtype or a draft it cannot have, Conflict while it is there with others."""
    version = kernel.registry.resolve(body.ref)
    keep_ns = None if body.keep_alive_s is None else round(body.keep_alive_s * 1e9)
    draft = None if body.draft is None else _find_draft(kernel, call, body.draft)
    if body.dtype is not None or draft is not None:
        await _load_as(kernel, version, body.dtype, keep_ns, draft)
    else:
        await _make_resident(kernel, version, keep_alive_ns=keep_ns)
    return sc.Done(_loaded(kernel, version))


def _find_draft(kernel: Kernel, call: Call, ref: str) -> ModelVersion:
    """Who loads it as a draft loads it. Raises PermissionDenied, ModelNotFound."""
    kernel.authorizer.authorize(call.principal, Action.WRITE_MODELS, Resource("model", ref))
    return kernel.registry.resolve(ref)


async def _load_as(
    kernel: Kernel,
    version: ModelVersion,
    dtype: str | None,
    keep_ns: int | None,
    draft: ModelVersion | None = None,
) -> None:
    placement = kernel.placement
    wanted = placement.facts_as(version, dtype, draft)
    _require(kernel, version, wanted)
    if too_large := check_size(kernel.state, wanted):
        raise too_large
    if dtype is not None:
        placement.ask(version, dtype)
    if draft is not None:
        placement.ask_draft(version, draft)
    try:
        await _make_resident(kernel, version, keep_alive_ns=keep_ns)
    except LLMOSError:
        if not _staying(kernel, version):
            _forget_wishes(kernel, version)
        raise
    _require(kernel, version, wanted)  # others may have asked meanwhile


def _forget_wishes(kernel: Kernel, version: ModelVersion) -> None:
    kernel.placement.ask(version, None)
    kernel.placement.ask_draft(version, None)


def _staying(kernel: Kernel, version: ModelVersion) -> list[Replica]:
    """Those that the next request may find: not what an unload has told to go."""
    leaving = (ReplicaState.DRAINING, ReplicaState.STOPPING)
    return [
        replica
        for replica in kernel.state.replicas_of(version.model_id)
        if replica.state not in leaving or replica.is_to_park
    ]


def _require(kernel: Kernel, version: ModelVersion, wanted: ModelFacts) -> None:
    for replica in _staying(kernel, version):
        model = replica.model
        if model.dtype != wanted.dtype:
            what, param = f"as {model.dtype}", "dtype"
        elif model.draft != wanted.draft:
            draft = kernel.placement.draft_of(model)
            what, param = f"with {draft.ref if draft else 'no model'} as its draft", "draft"
        else:
            continue
        raise Conflict(
            f"{version.ref} is loaded {what}: `llmos unload {version.ref}` first", param=param
        )


def _loaded(kernel: Kernel, version: ModelVersion) -> str:
    """What was done, and what there is to know about it."""
    choice = kernel.placement.dtype_of(version)
    as_dtype = f" as {choice.dtype}" if choice.dtype else ""
    if draft := kernel.placement.draft_for(version):
        as_dtype += f", {draft.ref} guesses ahead for it"
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
        _forget_wishes(kernel, version)
        return sc.Done(f"{version.ref} is not loaded")
    _forget_wishes(kernel, version)
    kernel.loop.post(ev.ModelUnwanted(version.model_id))
    return sc.Done(f"{version.ref} is being unloaded")
