"""Tasks: one thing done with many inputs. One pure function per call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from llmos.sdk.calls import segment
from llmos.sdk.config import ClientConfig
from llmos.sdk.files import Pieces
from llmos.sdk.shown import Job, Jobs
from llmos.sdk.wire import Call, Patience, Request, WholeBody, decode, encode


def create_task(
    config: ClientConfig, task: Mapping[str, Any], *, idempotency_key: str | None = None
) -> Call[Job]:
    """Submit a task, as docs/tasks.md describes it; answered once it is on disk, as its job.

    Raises InvalidRequest, ModelNotFound, NotFound (`input.file`), IdempotencyMismatch, QueueFull,
    DiskFull.
    """
    headers = () if idempotency_key is None else (("Idempotency-Key", idempotency_key),)
    request = Request("POST", "/os/v1/tasks", encode(task), headers=headers)
    return Call(request, lambda: WholeBody(_reply, config.max_answer_bytes))


def list_tasks(
    config: ClientConfig,
    *,
    state: str | Sequence[str] = (),
    after: str | None = None,
    limit: int = 100,
) -> Call[Jobs]:
    """Newest first; as `client.jobs.list`. Raises InvalidRequest."""
    states = [state] if isinstance(state, str) else state
    fields = {"state": ",".join(states), "after": after, "limit": limit}
    query = urlencode({name: value for name, value in fields.items() if value})
    request = Request("GET", f"/os/v1/tasks?{query}")
    return Call(request, lambda: WholeBody(lambda b: decode(b, Jobs), config.max_answer_bytes))


def show_task(config: ClientConfig, task_id: str) -> Call[Job]:
    """A task and when it may end. Raises NotFound."""
    return _one(config, "GET", task_id)


def cancel_task(config: ClientConfig, task_id: str) -> Call[Job]:
    """End it; what is done stays. Raises NotFound."""
    return _one(config, "POST", task_id, "/cancel")


def task_result(
    config: ClientConfig,
    task_id: str,
    write: Callable[[bytes], object],
    format: str | None = None,  # noqa: A002 - the API's word
) -> Call[int]:
    """Its results in a format that it was told to make (None: the first), or `rows`, `errors`,
    handed to `write` piece by piece; how many bytes. Raises NotFound, Conflict (not yet)."""
    query = "" if format is None else "?" + urlencode({"format": format})
    path = f"/os/v1/tasks/{segment(task_id)}/result{query}"
    return Call(Request("GET", path, None, Patience.LONG), lambda: Pieces(write))


def _one(config: ClientConfig, method: str, task_id: str, tail: str = "") -> Call[Job]:
    request = Request(method, f"/os/v1/tasks/{segment(task_id)}{tail}")
    return Call(request, lambda: WholeBody(_reply, config.max_answer_bytes))


def _reply(body: bytes) -> Job:
    return decode(body, Job)
