"""What a client does over HTTP, one thing at a time, and what it writes down about it."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.storm.history import Seen, SeenFile, Writer
from tests.storm.snapshot import ENDED_STATES, outcome_of
from tests.storm.wire import Answer, Unanswered, Unreachable, Wire

RANKS = {"interactive": 0, "default": 1, "batch": 2}
RESPONSE_STATES = {
    "queued": "pending",
    "in_progress": "running",
    "completed": "succeeded",
    "incomplete": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
BATCH_STATES = {
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "failed",
}
NEWEST = 60
OTHER_NAMES = re.compile(r"^(batch|resp)_")


def job_id_of(name: str) -> str:
    return OTHER_NAMES.sub("job_", name)


def seen_job(job: dict[str, Any]) -> Seen:
    """As `/os/v1/jobs` shows it."""
    spec, state = job["spec"], job["state"]
    tag = spec.get("name") or spec.get("metadata", {}).get("tag", "")
    is_end = state in ENDED_STATES
    return Seen(
        job_id=job["job_id"],
        state=state,
        tag=tag,
        epoch=job["epoch"],
        outcome=outcome_of(job["outputs"], job["error"]) if is_end else "",
        num_deaths=job["num_deaths"],
        num_unmet=job["num_unmet"],
        is_told=job["cancel_reason"] is not None and not is_end,
        is_child="parent_id" in spec,
    )


@dataclass(frozen=True)
class Request:
    """One that makes something, so that it can be sent again as it was."""

    op: str
    path: str
    body: Any
    tag: str
    key: str
    keys: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    digest: str = ""
    plain: bool = True
    """See `history.Asked`."""


WEIGHTS = {
    "respond": 90,
    "respond_whole": 6,
    "drill": 4,
    "drill_roughly": 1,
    "after": 2,
    "child": 1,
    "cancel": 4,
    "retry": 2,
    "show": 12,
    "list": 2,
    "upload": 5,
    "read": 4,
    "remove_file": 1,
    "batch": 1,
    "again": 6,
}
"""How often each kind of act is done."""


class Acts:
    """One client's. `unanswered`: with a key, and without an answer so far."""

    def __init__(self, wire: Wire, writer: Writer, chance: random.Random, name: str) -> None:
        self._wire, self._writer, self._random, self._name = wire, writer, chance, name
        self._count = 0
        self._jobs: list[str] = []
        self._failed: list[str] = []
        self._files: list[tuple[str, str]] = []
        self._done: list[Request] = []
        self.unanswered: list[Request] = []

    def by_name(self, name: str) -> Callable[[], Awaitable[None]]:
        act: Callable[[], Awaitable[None]] = getattr(self, f"_{name}")
        return act

    async def ask_again(self) -> None:
        """One of the unanswered, with its key."""
        await self._make(self.unanswered.pop(self._random.randrange(len(self.unanswered))))

    async def _again(self) -> None:
        """What was not answered, or was: a second time, with the same key."""
        if self.unanswered:
            await self.ask_again()
        elif self._done:
            await self._make(self._random.choice(self._done))

    # asking

    async def _ask(
        self,
        op: str,
        method: str,
        path: str,
        told: Callable[[Answer], dict[str, Any]],
        body: Any = None,
        headers: dict[str, str] | None = None,
        **about: Any,
    ) -> dict[str, Any] | None:
        """Both ends are written down. None when it was refused. Raises Unreachable, Unanswered."""
        number = self._writer.ask(op, **about)
        try:
            answer = await self._wire.ask(method, path, body, headers)
        except Unreachable:
            self._writer.heard(number, "no", code="unreachable")
            raise
        except Unanswered:
            self._writer.heard(number, "unknown")
            raise
        if answer.status >= 400:
            self._writer.heard(number, "no", code=_code(answer))
            return None
        heard = told(answer)
        self._writer.heard(number, "ok", **heard)
        return heard

    async def _make(self, request: Request) -> None:
        headers = dict(request.headers)
        if request.key:
            headers["Idempotency-Key"] = request.key
        told = _told_file if request.op == "file_add" else _told_made
        try:
            heard = await self._ask(
                request.op,
                "POST",
                request.path,
                told,
                request.body,
                headers,
                tag=request.tag,
                key=request.key,
                keys=list(request.keys),
                digest=request.digest,
                plain=request.plain,
            )
        except (Unreachable, Unanswered):
            if request.key:
                self.unanswered.append(request)
            raise
        if heard is None:
            return
        if request.key:
            self._done = [*self._done[-20:], request]
        self._jobs = [*self._jobs[-NEWEST:], *(seen.job_id for seen in heard.get("seen", ()))]
        self._files = [
            *self._files[-NEWEST:],
            *((f.file_id, f.tag) for f in heard.get("files", ())),
        ]

    def _named(self, op: str) -> tuple[str, str]:
        """A tag, and a key in some of the cases."""
        self._count += 1
        tag = f"{op[0]}{self._name}.{self._count}"
        return tag, f"key {tag}" if self._random.random() < 0.5 else ""

    # what is made

    async def _respond(self, whole: bool = False) -> None:
        tag, key = self._named("respond")
        body = {
            "model": "echo",
            "input": (text := f"{tag} 你好 🐼"),
            "background": not whole,
            "store": True,
            "metadata": {"tag": tag},
        }
        made = Request("submit", "/v1/responses", body, tag, key, digest=text, plain=not whole)
        await self._make(made)

    async def _respond_whole(self) -> None:
        await self._respond(whole=True)

    async def _submit(
        self, steps: list[dict[str, Any]], keys: list[str] | None = None, **spec: Any
    ) -> None:
        tag, key = self._named("drill")
        body = {"program": "drill", "inputs": {"steps": steps}, "name": tag, **spec}
        made = Request("submit", "/os/v1/jobs", body, tag, key, tuple(keys or ()), plain=not spec)
        await self._make(made)

    async def _drill(self) -> None:
        num = self._random.choice((0, 1, 5, 40))
        steps: list[dict[str, Any]] = [{"do": "result", "num_results": num, "delay_s": 0.002}]
        if self._random.random() < 0.3:
            steps.append({"do": "count", "to": 5, "every": 2, "delay_s": 0.01})
        if self._random.random() < 0.2:
            steps.append({"do": "call", "num_calls": 2, "window": 2})
        await self._submit(steps, [f"r{i}" for i in range(num)])

    async def _drill_roughly(self) -> None:
        """Dies once, fails once, or fails for good."""
        kill = {"do": "kill", "until_attempt": 1}
        fail = {"do": "raise", "code": "queue_full", "until_attempt": 1}
        end = {"do": "raise", "code": "ValueError"}
        results = {"do": "result", "num_results": 3}
        last = self._random.choice((kill, fail, end))
        await self._submit([results, last], ["r0", "r1", "r2"])

    def _some(self) -> str | None:
        return self._random.choice(self._jobs) if self._jobs else None

    async def _after(self) -> None:
        if (job_id := self._some()) is not None:
            await self._submit([], needs=[job_id])

    async def _child(self) -> None:
        if (job_id := self._some()) is not None:
            await self._submit([{"do": "sleep", "seconds": 0.05}], parent_id=job_id)

    async def _upload(self) -> None:
        tag, key = self._named("upload")
        data = hashlib.sha256(tag.encode()).digest() * self._random.randrange(1, 2000)
        await self._send(tag, key, data, "user_data")

    async def _send(self, tag: str, key: str, data: bytes, purpose: str) -> None:
        edge = "storm-" + hashlib.sha256(tag.encode()).hexdigest()
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{tag}"\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        kind = ("Content-Type", f"multipart/form-data; boundary={edge}")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        await self._make(
            Request("file_add", "/v1/files", body, tag, key, headers=(kind,), digest=digest)
        )

    async def _batch(self) -> None:
        num = self._random.choice((1, 20, 100))
        tag, key = self._named("batch")
        await self._send(f"{tag}.jsonl", "", batch_lines(num), "batch")
        file_id, name = self._files[-1] if self._files else ("", "")
        if name != f"{tag}.jsonl":
            return
        body = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"tag": tag},
        }
        keys = tuple(f"c{i}" for i in range(num))
        await self._make(Request("submit", "/v1/batches", body, tag, key, keys))

    # what is done to it

    async def _act_on(self, op: str, job_id: str | None, path: str, method: str = "POST") -> None:
        if job_id is not None:
            path = f"/os/v1/jobs/{job_id}{path}"
            await self._ask(op, method, path, _told_job, job_id=job_id)

    async def _cancel(self) -> None:
        await self._act_on("cancel", self._some(), "/cancel")

    async def _show(self) -> None:
        await self._act_on("show", self._some(), "", "GET")

    async def _retry(self) -> None:
        if self._failed:
            await self._act_on("retry", self._failed.pop(), "/retry")

    async def _list(self) -> None:
        heard = await self._ask("list", "GET", "/os/v1/jobs?limit=20", _told_jobs)
        for seen in (heard or {}).get("seen", ()):
            if seen.state == "failed" and seen.job_id not in self._failed:
                self._failed = [*self._failed[-10:], seen.job_id]

    async def _read(self) -> None:
        if self._files:
            file_id, tag = self._random.choice(self._files)

            def told(answer: Answer) -> dict[str, Any]:
                digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
                return {"files": [SeenFile(file_id, digest, tag)]}

            path = f"/v1/files/{file_id}/content"
            await self._ask("file_read", "GET", path, told, file_id=file_id)

    async def _remove_file(self) -> None:
        if self._files:
            file_id, _ = self._files.pop(self._random.randrange(len(self._files)))
            path = f"/v1/files/{file_id}"
            await self._ask("file_remove", "DELETE", path, lambda _: {}, file_id=file_id)


def batch_lines(num: int) -> bytes:
    """A batch's input of so many chats."""
    return b"".join(
        json.dumps(
            {
                "custom_id": f"c{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "echo", "messages": [{"role": "user", "content": f"line {i}"}]},
            }
        ).encode()
        + b"\n"
        for i in range(num)
    )


def _code(answer: Answer) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _told_job(answer: Answer) -> dict[str, Any]:
    return {"seen": [seen_job(answer.json()["job"])]}


def _told_jobs(answer: Answer) -> dict[str, Any]:
    return {"seen": [seen_job(job) for job in answer.json()["jobs"]]}


def _told_file(answer: Answer) -> dict[str, Any]:
    made = answer.json()
    return {"files": [SeenFile(made["id"], "", made["filename"])]}


def _told_made(answer: Answer) -> dict[str, Any]:
    """A job by any of its three names. OpenAI's objects tell no epoch and no outcome of ours."""
    made = answer.json()
    if "job" in made:
        return _told_job(answer)
    states = RESPONSE_STATES if made["object"] == "response" else BATCH_STATES
    state = states.get(made["status"], "pending")
    return {"seen": [Seen(job_id_of(made["id"]), state, made["metadata"]["tag"])]}
