"""System call: an inference, of any kind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmos.abi.ids import new_id
from llmos.abi.inference import GENERATE, UNBOUNDED, ItemsPrompt, PrepareItem, Sampling
from llmos.abi.policy import Waiting
from llmos.abi.principal import ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import Infer
from llmos.errors import (
    Cancelled,
    CapacityError,
    ContextLengthExceeded,
    InvalidRequest,
    LLMOSError,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    ShuttingDown,
)
from llmos.kernel.core import events as ev
from llmos.kernel.front import Call
from llmos.kernel.process import Process
from llmos.telemetry.tracer import begin

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

RETRY_S = 1.0
"""After which it is worth another try: one of very many open requests ends soon."""

_PROMPT_FIELD = {"chat": "messages", "responses": "input"}
"""What the prompt is called in a route's body; `prompt` elsewhere."""

_CLASS_OF_ROUTE = ServiceClass.DEFAULT


async def infer(kernel: Kernel, call: Call, body: Infer) -> None:
    """Check numbers, tokenize, check tokens, hand to the core. The core's verdict is the reply."""
    process = _open(kernel, call, body)
    if refusal := _over_numbers(kernel, process):
        kernel.refused(process, refusal.to_info())
        return
    try:
        await _prepare(kernel, process)
        arrival = _arrival(kernel, process)
    except LLMOSError as error:
        kernel.abandon(process, error.to_info())
        raise
    except BaseException:  # whatever it was, the caller hears it from the gate
        kernel.abandon(process)
        raise
    call.front.streams[call.number] = process.stream  # from now on a cancel is the core's to take
    kernel.loop.post(arrival)


def _open(kernel: Kernel, call: Call, body: Infer) -> Process:
    if kernel.draining:
        raise ShuttingDown("the server is stopping")
    _check_options(body)
    version = kernel.registry.resolve(body.model)
    kind = _kind(version, body)  # first: what it is asked for may be asked in another way
    kernel.placement.check(version, body.sampling)
    service_class = _service_class(call, body)
    request_id = new_id("req")
    trace = begin(kernel.tracer, call.trace_parent)
    process = Process(
        request_id=request_id,
        principal=call.principal,
        version=version,
        body=body,
        service_class=service_class,
        stream=kernel.new_stream(call, request_id, body.options.resume_s),
        created_ns=time.time_ns(),
        created_mono=time.monotonic_ns(),
        nice=body.options.nice,
        trace_parent=trace.context.header if trace else call.trace_parent,
        trace=trace,
        parent_id=call.front.parent_id,
        kind=kind,
    )
    kernel.table.add(process)
    return process


def _over_numbers(kernel: Kernel, process: Process) -> CapacityError | None:
    """The bounds on what is open, prompts still being read included: those cost the tokenizer."""
    config, table = kernel.config, kernel.table
    num_open, num_of_tenant = len(table.live), table.num_live_of(process.principal.tenant_id)
    if num_of_tenant > config.max_open_per_tenant:
        message = f"this tenant has {num_of_tenant - 1} requests open"
        details = {"position": num_of_tenant, "reason": message, "eta_s": RETRY_S}
        return QuotaExceeded(message, retry_after_s=RETRY_S, details=details)
    if num_open > config.max_open_requests:
        message = f"{num_open - 1} requests are open"
        details = {"position": num_open, "reason": message, "eta_s": RETRY_S}
        return QueueFull(message, retry_after_s=RETRY_S, details=details)
    return None


def _check_options(body: Infer) -> None:
    if not -20 <= body.options.nice <= 19:
        raise InvalidRequest("nice is between -20 and 19", param="llmos.nice")


def _service_class(call: Call, body: Infer) -> ServiceClass:
    highest, wanted = call.principal.max_class, body.options.service_class
    if wanted is None:
        return min(_CLASS_OF_ROUTE, highest)
    if wanted > highest:
        raise PermissionDenied(
            f"this key may ask for class {highest.name.lower()} at most", param="llmos.class"
        )
    return wanted


def _kind(version: ModelVersion, body: Infer) -> str:
    """What the model is asked for. Raises InvalidRequest where it cannot do that."""
    prompt = body.prompt
    kind = prompt.kind or version.kinds[0] if isinstance(prompt, ItemsPrompt) else GENERATE
    if kind not in version.kinds:
        able = ", ".join(version.kinds)
        text = f"{version.ref} is for {able}, not for {kind[:40]}"
        raise InvalidRequest(text, param="model", details={"kinds": [*version.kinds]})
    if isinstance(prompt, ItemsPrompt):
        if kind == GENERATE:
            raise InvalidRequest(f"{version.ref} generates: it takes no items", param="model")
        if body.options.resume_s:
            raise InvalidRequest("only a generated answer can be kept", param="llmos.resume_s")
    return kind


async def _prepare(kernel: Kernel, process: Process) -> None:
    version, body = process.version, process.body
    room = kernel.placement.context_length(version)
    item = PrepareItem(
        process.request_id,
        version.prepare,
        version.folder,
        body.prompt,
        version.vocab_size,
        body.sampling.grammar,
        process.kind,
        room,
        kernel.spills.path(process.request_id),
    )
    prepared = await kernel.tokenizers.prepare(item)
    kernel.placement.check(version, Sampling(grammar=prepared.grammar))
    if process.cancel_reason is not None:
        raise Cancelled(process.cancel_reason)
    wanted = body.sampling.max_tokens
    is_generated = process.kind == GENERATE  # else the preparer has seen to it, item by item
    if is_generated and prepared.num_tokens + (1 if wanted == UNBOUNDED else wanted) > room:
        asked = "at least one" if wanted == UNBOUNDED else str(wanted)
        raise ContextLengthExceeded(
            f"{version.ref} has a context of {room} tokens; the prompt has {prepared.num_tokens}, "
            f"and {asked} more {'was' if wanted == UNBOUNDED else 'were'} asked for",
            param=_PROMPT_FIELD.get(body.route, "prompt"),
        )
    process.prepared = prepared
    if process.trace is not None:
        process.trace.prepared_ns = time.time_ns()


def _most_steps(process: Process) -> int:
    """Tokens it may make, or items it has to answer: what the core sees it move by."""
    prompt = process.body.prompt
    if isinstance(prompt, ItemsPrompt):
        return max(1, len(prompt.items))
    return process.body.sampling.max_tokens


def _arrival(kernel: Kernel, process: Process) -> ev.Arrived:
    options, prepared = process.body.options, process.prepared
    assert prepared is not None
    deadline_ns = None
    if options.deadline_ms is not None:
        deadline_ns = process.created_mono + options.deadline_ms * 1_000_000
    keep_alive_ns = None
    if options.keep_alive_s is not None:
        keep_alive_ns = int(options.keep_alive_s * 1e9)
    waiting = Waiting(
        request_id=process.request_id,
        arrival=kernel.next_arrival(),
        ready_ns=process.created_mono,
        service_class=process.service_class,
        nice=process.nice,
        tenant_id=process.principal.tenant_id,
        principal_id=process.principal.principal_id,
        weight=process.principal.weight,
        prompt_tokens=prepared.num_tokens,
        expected_tokens=_most_steps(process),
    )
    facts = kernel.placement.facts(process.version)
    max_tokens = _most_steps(process)
    survives = process.stream.kept is not None
    return ev.Arrived(waiting, facts, max_tokens, deadline_ns, keep_alive_ns, survives)
