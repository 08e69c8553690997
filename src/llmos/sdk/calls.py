"""Our own API, `/os/v1`, and the health routes: one pure function per call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from llmos.abi.principal import Key, Role, ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.settings import SettingInfo, SettingList
from llmos.abi.syscall import (
    Done,
    HealthReport,
    KeyList,
    ProcessInfo,
    ReplicaInfo,
    WorkerInfo,
    WorkerList,
)
from llmos.errors import InvalidRequest, ProtocolViolation
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Listed, Memory, Model, Process, Replica, Secret, Status, Story
from llmos.sdk.wire import (
    Call,
    FileBody,
    Patience,
    Request,
    WholeBody,
    decode,
    encode,
    error_from_envelope,
)

T = TypeVar("T")
_NOT_READY = frozenset({503})


class _Models(msgspec.Struct):
    models: list[Model]


class _Replicas(msgspec.Struct):
    replicas: list[Replica]


class _Processes(msgspec.Struct):
    processes: list[Process]


def model_path(ref: str, tail: str = "") -> str:
    """The path of a model; a reference may hold one `/` and one `:`. Raises InvalidRequest."""
    return f"/os/v1/models/{'/'.join(segment(part) for part in ref.split('/'))}{tail}"


def segment(text: str) -> str:
    """Text as one segment of a path. Raises InvalidRequest on what would lead elsewhere."""
    if text in {"", ".", ".."}:
        raise InvalidRequest(f"{text!r} is not a name")
    return quote(text, safe=":", errors="replace")


def list_models(config: ClientConfig) -> Call[Listed[ModelVersion]]:
    """Every model version."""
    return _get(config, "/os/v1/models", lambda body: Listed(decode(body, _Models).models))


def show_model(config: ClientConfig, ref: str) -> Call[Model]:
    """One model version. Raises ModelNotFound."""
    return _get(config, model_path(ref), lambda body: decode(body, Model))


def remove_model(config: ClientConfig, ref: str) -> Call[Model]:
    """Forget a version. Raises ModelNotFound, Conflict while it is in use."""
    request = Request("DELETE", model_path(ref), None, Patience.LONG)
    return _call(config, request, lambda body: decode(body, Model))


def alias_model(config: ClientConfig, ref: str, alias: str, *, reason: str = "") -> Call[Model]:
    """Let `name:alias` be this version from now on. Raises ModelNotFound, InvalidRequest."""
    body = encode({"alias": alias, "reason": reason})
    request = Request("POST", model_path(ref, "/alias"), body)
    return _call(config, request, lambda answer: decode(answer, Model))


def unalias_model(config: ClientConfig, ref: str) -> Call[Model]:
    """Take `name:alias` away; the version it was. Raises ModelNotFound, InvalidRequest."""
    request = Request("DELETE", model_path(ref, "/alias"))
    return _call(config, request, lambda answer: decode(answer, Model))


def load_model(
    config: ClientConfig,
    ref: str,
    keep_alive_s: float | None = None,
    dtype: str | None = None,
    draft: str | None = None,
) -> Call[Done]:
    """Make a replica resident; answered when it is ready.

    `keep_alive_s`: how long it then stays unused; `dtype`: the type of its weights in memory
    (`auto`, `float32`, `bfloat16`, `float16`, `int8`, `int4`); `draft`: a smaller model with the
    same tokens that guesses ahead; None: as it was. Raises LoadFailed, ModelTooLarge,
    InvalidRequest, Conflict (it is there with weights of another type, or another draft).
    """
    said = {"keep_alive_s": keep_alive_s, "dtype": dtype, "draft": draft}
    given = {name: value for name, value in said.items() if value is not None}
    body = encode(given) if given else None
    return _call(config, Request("POST", model_path(ref, "/load"), body, Patience.LONG), _done)


def pin_model(config: ClientConfig, ref: str) -> Call[Done]:
    """Load a model and keep it, whatever else needs room; answered when it is ready.

    Raises as `load_model`.
    """
    return _call(config, Request("POST", model_path(ref, "/pin"), None, Patience.LONG), _done)


def unpin_model(config: ClientConfig, ref: str) -> Call[Done]:
    """Keep a model no longer than any other; it is not stopped by this."""
    return _call(config, Request("DELETE", model_path(ref, "/pin")), _done)


def unload_model(config: ClientConfig, ref: str) -> Call[Done]:
    """Stop the model's replicas once idle; a pin ends with it."""
    request = Request("POST", model_path(ref, "/unload"), None, Patience.LONG)
    return _call(config, request, _done)


def list_replicas(config: ClientConfig) -> Call[Listed[ReplicaInfo]]:
    """Resident, starting, parked and failed replicas."""
    return _get(config, "/os/v1/replicas", lambda body: Listed(decode(body, _Replicas).replicas))


def show_memory(config: ClientConfig) -> Call[Memory]:
    """Every device's ledger, who waits for room, and the snapshots on the disk."""
    return _get(config, "/os/v1/memory", lambda body: decode(body, Memory))


def list_settings(config: ClientConfig) -> Call[Listed[SettingInfo]]:
    """Every setting of the server in force, and where each came from."""
    return _get(config, "/os/v1/settings", lambda body: Listed(decode(body, SettingList).settings))


def list_workers(config: ClientConfig) -> Call[Listed[WorkerInfo]]:
    """The worker processes."""
    return _get(config, "/os/v1/workers", lambda body: Listed(decode(body, WorkerList).workers))


def list_processes(
    config: ClientConfig,
    *,
    state: str | Sequence[str] = (),
    model: str | None = None,
    tenant: str | None = None,
    mine: bool = False,
) -> Call[Listed[ProcessInfo]]:
    """Requests and jobs, waiting, running and lately ended.

    `state` is one or several of preparing, waiting, running, paused, suspending, suspended,
    finished, failed, aborted, or `live` and `ended` for those groups; `model` is a name or
    `name:version`. Raises InvalidRequest.
    """
    states = [state] if isinstance(state, str) else state
    fields = {"state": ",".join(states), "model": model, "tenant": tenant}
    given = {name: value for name, value in fields.items() if value}
    query = urlencode({**given, **({"mine": "true"} if mine else {})})
    path = "/os/v1/processes" + (f"?{query}" if query else "")
    return _get(config, path, lambda body: Listed(decode(body, _Processes).processes))


def show_process(config: ClientConfig, process_id: str) -> Call[Story]:
    """A process and every decision about it, with reasons. Raises NotFound."""
    return _get(config, _process_path(process_id), _story)


def nice_process(
    config: ClientConfig,
    process_id: str,
    nice: int | None = None,
    *,
    service_class: ServiceClass | str | None = None,
) -> Call[Done]:
    """Change how urgent a live process is: `nice` from -20 (first) to 19 (last), its class.

    Raises NotFound, PermissionDenied (a class above one's own), InvalidRequest.
    """
    if isinstance(service_class, ServiceClass):
        service_class = service_class.name.lower()
    fields = {"nice": nice, "class": service_class}
    body = encode({name: value for name, value in fields.items() if value is not None})
    return _call(config, Request("POST", _process_path(process_id, "/nice"), body), _done)


def wait_process(config: ClientConfig, process_id: str, timeout_s: float = 60.0) -> Call[Story]:
    """Its story once it has ended, or after `timeout_s` (at most 3600) as it is then.

    `info.ended_ns` tells which. Raises NotFound, InvalidRequest.
    """
    path = _process_path(process_id, f"/wait?timeout_s={timeout_s:g}")
    # a client that hears nothing for `long_timeout_s` gives the server up
    if timeout_s >= config.long_timeout_s:
        raise InvalidRequest(
            f"timeout_s is below {config.long_timeout_s:g}, the client's own", param="timeout_s"
        )
    return _call(config, Request("GET", path, None, Patience.LONG), _story)


def kill_process(config: ClientConfig, process_id: str) -> Call[Done]:
    """End a request or job. Raises NotFound."""
    return _call(config, Request("DELETE", _process_path(process_id)), _done)


def status(config: ClientConfig) -> Call[Status]:
    """The kernel's own account of itself."""
    return _get(config, "/os/v1/status", lambda body: decode(body, Status))


def list_keys(config: ClientConfig) -> Call[Listed[Key]]:
    """Every key's record; secrets are never listed."""
    return _get(config, "/os/v1/keys", lambda body: Listed(decode(body, KeyList).keys))


def add_key(
    config: ClientConfig,
    name: str,
    tenant: str,
    *,
    role: Role | str | None = None,
    max_class: ServiceClass | str | None = None,
    weight: float | None = None,
) -> Call[Secret]:
    """A new key; its secret is in the answer and nowhere else. Raises Conflict."""
    if isinstance(max_class, ServiceClass):
        max_class = max_class.name.lower()
    fields = {"role": role, "max_class": max_class, "weight": weight}
    body = {"name": name, "tenant": tenant, **{k: v for k, v in fields.items() if v is not None}}
    request = Request("POST", "/os/v1/keys", encode(body))
    return _call(config, request, lambda answer: decode(answer, Secret))


def revoke_key(config: ClientConfig, key_id_or_name: str) -> Call[Key]:
    """End a key. Raises NotFound."""
    path = f"/os/v1/keys/{segment(key_id_or_name)}"
    return _call(config, Request("DELETE", path), lambda body: decode(body, Key))


def health(config: ClientConfig) -> Call[dict[str, Any]]:
    """`/healthz`: an answer at all proves that the server lives. Needs no key."""
    return _get(config, "/healthz", lambda body: decode(body, dict[str, Any]))


def ready(config: ClientConfig) -> Call[HealthReport]:
    """`/readyz`: whether a request would be served, and if not why. Needs no key."""
    return _get(config, "/readyz", _health_report, _NOT_READY)


def metrics(config: ClientConfig) -> Call[str]:
    """`/metrics` in Prometheus' text format."""
    return _get(config, "/metrics", lambda body: body.decode(errors="replace"))


def upload_file(
    config: ClientConfig, upload_id: str, name: str, file: FileBody
) -> Call[dict[str, Any]]:
    """Send one file of an upload; its name may have a folder. Raises InvalidRequest,
    PayloadTooLarge, DiskFull."""
    place = "/".join(segment(part) for part in name.split("/"))
    path = f"/os/v1/uploads/{segment(upload_id)}/{place}"
    request = Request("PUT", path, file, Patience.LONG)
    return _call(config, request, lambda body: decode(body, dict[str, Any]))


def discard_upload(config: ClientConfig, upload_id: str) -> Call[None]:
    """Drop an upload."""
    path = f"/os/v1/uploads/{segment(upload_id)}"
    return _call(config, Request("DELETE", path), lambda _: None)


def _get(
    config: ClientConfig,
    path: str,
    parse: Callable[[bytes], T],
    accepts: frozenset[int] = frozenset(),
) -> Call[T]:
    return _call(config, Request("GET", path), parse, accepts)


def _call(
    config: ClientConfig,
    request: Request,
    parse: Callable[[bytes], T],
    accepts: frozenset[int] = frozenset(),
) -> Call[T]:
    return Call(request, lambda: WholeBody(parse, config.max_answer_bytes), accepts)


def _process_path(process_id: str, tail: str = "") -> str:
    return f"/os/v1/processes/{segment(process_id)}{tail}"


def _story(body: bytes) -> Story:
    return decode(body, Story)


def _done(body: bytes) -> Done:
    return Done(str(decode(body, dict[str, Any]).get("done", "")))


def _health_report(body: bytes) -> HealthReport:
    answer = decode(body, dict[str, Any])
    if "error" in answer:
        raise error_from_envelope(answer)
    try:
        return msgspec.convert(answer, HealthReport)
    except msgspec.ValidationError as error:
        raise ProtocolViolation(f"/readyz answered something else: {error}") from error
