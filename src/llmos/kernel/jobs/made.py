"""Models and jobs: those a job is given, those it makes, and what it will need for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmos.abi.jobs import INFER, JobRecord, JobSpec
from llmos.abi.principal import Action, Resource
from llmos.errors import InvalidRequest, ModelTooLarge
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


def pin_models(kernel: Kernel, call: Call, spec: JobSpec) -> JobSpec:
    """With each model as the version it is now: another attempt must not find another.

    Raises ModelNotFound, PermissionDenied.
    """
    pinned = {}
    for name, ref in spec.models.items():
        kernel.authorizer.authorize(call.principal, Action.READ_MODELS, Resource("model", ref))
        pinned[name] = kernel.registry.resolve(ref).ref
    return msgspec.structs.replace(spec, models=pinned) if pinned else spec


async def plan_job(kernel: Kernel, call: Call, spec: JobSpec) -> JobSpec:
    """With the memory its program's plan asks for, unless it asks for some itself.

    Raises what the plan raises, PermissionDenied for a program that makes models, ModelTooLarge.
    """
    if spec.program == INFER:
        return spec
    entry = kernel.program_of(spec.program)
    if entry.registers:
        anything = Resource("model", "*")
        kernel.authorizer.authorize(call.principal, Action.WRITE_MODELS, anything)
    if not entry.plan:
        return spec
    plan = kernel.plan_of(entry.plan)
    models = {name: kernel.registry.resolve(ref) for name, ref in spec.models.items()}
    budget_bytes = kernel.state.ledger.budget_bytes
    files = {n: (await kernel.files.get(f)).size_bytes for n, f in spec.files.items()}
    needed = await asyncio.to_thread(plan, spec.inputs, files, models, budget_bytes)
    if needed > budget_bytes:
        raise ModelTooLarge(
            f"the job needs {needed / (1 << 30):.2f} GiB, the budget is "
            f"{budget_bytes / (1 << 30):.2f} GiB",
            param="memory_bytes",
        )
    return spec if spec.memory_bytes else msgspec.structs.replace(spec, memory_bytes=needed)


async def register(kernel: Kernel, job: JobRecord, path: str, name: str, folder: str) -> str:
    """The reference of the version that `path`, which must lie within `folder`, has become.

    Raises PermissionDenied, InvalidRequest, ModelRejected, DiskFull, StorageError.
    """
    kernel.authorizer.authorize(job.principal, Action.WRITE_MODELS, Resource("model", name))
    made, within = Path(path), Path(folder)
    resolved = await asyncio.to_thread(made.resolve)
    if await asyncio.to_thread(within.resolve) not in resolved.parents:
        raise InvalidRequest("a model that is registered lies in its job's folder", param="folder")
    version = await kernel.registry.register(resolved, name, f"job:{job.job_id}")
    return version.ref
