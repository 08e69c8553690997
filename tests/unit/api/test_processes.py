"""/os/v1/processes: filters, stories, nice, waiting and leaving; what a refusal tells."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from llmos.abi.events import Served
from llmos.abi.jobs import JobState
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer
from llmos.abi.syscall import (
    Decided,
    Done,
    Infer,
    ListProcesses,
    NiceProcess,
    ProcessInfo,
    ProcessList,
    ProcessStory,
    ShowProcess,
    Syscall,
    WaitProcess,
)
from llmos.api.routes.processes import ENDED, LIVE, TIMEOUT
from llmos.errors import (
    DeadlineExceeded,
    LLMOSError,
    LoadFailed,
    NotFound,
    PermissionDenied,
    QueueFull,
)
from llmos.kernel.process import Phase
from llmos.kernel.sys_processes import MAX_WAIT_S as KERNEL_MAX_WAIT_S
from llmos.shapes.answers import (
    ChatAnswer,
    ChatChunk,
    CompletionAnswer,
    ErrorAnswer,
    LlmosAnswer,
)
from llmos.shapes.outcomes import how_served, report
from tests.unit.api.fake_gate import (
    CREATED_NS,
    FakeGate,
    Script,
    edge,
    events_of,
    finished,
    tokens,
)


def info(number: int = 1, **fields: Any) -> ProcessInfo:
    made = ProcessInfo(
        f"req_{number}", "request", "running", "echo:1", "ten_a", "admin", ServiceClass.BATCH, 0,
        3, 1, CREATED_NS, None, None, "", 1.5,
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


STORY = ProcessStory(info(), [Decided(CREATED_NS, "waiting", "queued behind 3")])
TABLE = [
    info(1),
    info(2, state="waiting", model="pilot:2"),
    info(3, state="finished", tenant_id="ten_b"),
    info(4, state="failed", principal="bob"),
]


def _says(result: Any) -> Script:
    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.reply(call, result)

    return script


def _raises(error: Exception) -> Script:
    async def script(gate: FakeGate, call: Syscall) -> None:
        raise error

    return script


def _get(path: str, scripts: dict[type, Script], method: str = "GET", **more: Any) -> Any:
    """The answer, and the calls the gate got."""

    async def scene() -> tuple[httpx.Response, list[Any]]:
        async with edge(scripts) as e:
            return await e.client.request(method, path, **more), e.gate.bodies

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4]),
        ("state=waiting", [2]),
        ("state=waiting,failed", [2, 4]),
        ("state=waiting&state=failed", [2, 4]),
        ("state=live", [1, 2]),
        ("state=ended&mine=true", []),
        ("state=ended&mine=false", [3, 4]),
        ("mine", [1, 2]),
        ("model=echo", [1, 3, 4]),
        ("model=pilot%3A2", [2]),
        ("model=pilot:1", []),
        ("tenant=ten_b", [3]),
    ],
)
def test_filters(query: str, expected: list[int]) -> None:
    scripts = {ListProcesses: _says(ProcessList(TABLE))}
    response, _ = _get(f"/os/v1/processes?{query}", scripts)
    assert response.status_code == 200, response.text
    found = [p["process_id"] for p in response.json()["processes"]]
    assert found == [f"req_{number}" for number in expected]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/os/v1/processes?state=sleeping", "state"),
        ("/os/v1/processes?state=", "state"),
        ("/os/v1/processes?stat=live", "stat"),
        ("/os/v1/processes?model=", "model"),
        ("/os/v1/processes?model=a&model=b", "model"),
        ("/os/v1/processes?model=%00", "model"),
        ("/os/v1/processes?model=%ff", "query"),
        ("/os/v1/processes?mine=perhaps", "mine"),
        ("/os/v1/processes?" + "&".join(["state=live"] * 40), "query"),
        ("/os/v1/processes/req_1/wait?timeout_s=soon", "timeout_s"),
        ("/os/v1/processes/req_1/wait?timeout_s=nan", "timeout_s"),
        ("/os/v1/processes/req_1/wait?timeout_s=inf", "timeout_s"),
        ("/os/v1/processes/req_1/wait?timeout_s=-1", "timeout_s"),
        ("/os/v1/processes/req_1/wait?timeout_s=3601", "timeout_s"),
        ("/os/v1/processes/req_1/wait?timeout=1", "timeout"),
    ],
)
def test_a_bad_query_is_400_naming_the_field(path: str, param: str) -> None:
    response, bodies = _get(path, {})
    error = ErrorAnswer.model_validate_json(response.content).error
    assert (response.status_code, error.param, bodies) == (400, param, [])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "nice"),
        ({"nice": None, "class": None}, "nice"),
        ({"nice": 20}, "nice"),
        ({"nice": -21}, "nice"),
        ({"nice": 1.5}, "nice"),
        ({"nice": True}, "nice"),
        ({"nice": "1"}, "nice"),
        ({"class": "king"}, "class"),
        ({"class": 2}, "class"),
        ({"service_class": "batch"}, "service_class"),
    ],
)
def test_bad_urgency_is_400_naming_the_field(body: dict[str, Any], param: str) -> None:
    response, bodies = _get("/os/v1/processes/req_1/nice", {}, "POST", json=body)
    assert (response.status_code, response.json()["error"]["param"], bodies) == (400, param, [])


def test_nice() -> None:
    body = {"nice": -20, "class": "batch"}
    scripts = {NiceProcess: _says(Done("set"))}
    response, bodies = _get("/os/v1/processes/req_1/nice", scripts, "POST", json=body)
    assert (response.status_code, response.json()) == (200, {"done": "set"})
    assert bodies == [NiceProcess("req_1", -20, ServiceClass.BATCH)]
    denied = {NiceProcess: _raises(PermissionDenied("class batch at most", param="class"))}
    response, _ = _get("/os/v1/processes/req_1/nice", denied, "POST", json={"class": "default"})
    assert (response.status_code, response.json()["error"]["param"]) == (403, "class")


@pytest.mark.parametrize("tail", ["", "/wait?timeout_s=0.5"])
def test_a_story(tail: str) -> None:
    scripts = {ShowProcess: _says(STORY), WaitProcess: _says(STORY)}
    response, bodies = _get("/os/v1/processes/req_1" + tail, scripts)
    made = response.json()
    assert set(made) == {"info", "decisions"}
    assert (made["info"]["service_class"], made["info"]["eta_s"]) == ("batch", 1.5)
    assert made["decisions"][0]["reason"] == "queued behind 3"
    assert bodies == [WaitProcess("req_1", 0.5) if tail else ShowProcess("req_1")]


@pytest.mark.parametrize(
    ("method", "tail", "kind"),
    [("GET", "", ShowProcess), ("GET", "/wait", WaitProcess), ("POST", "/nice", NiceProcess)],
)
def test_what_one_may_not_see_is_not_there(method: str, tail: str, kind: type) -> None:
    scripts = {kind: _raises(NotFound("no process x is known", param="process_id"))}
    body = {"json": {"nice": 1}} if method == "POST" else {}
    response, _ = _get("/os/v1/processes/x" + tail, scripts, method, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (404, "process_id")


def test_who_leaves_waits_no_longer() -> None:
    async def never(gate: FakeGate, call: Syscall) -> None:
        """Its process does not end."""

    async def scene() -> None:
        async with edge({WaitProcess: never}) as e:
            asking = asyncio.ensure_future(e.client.get("/os/v1/processes/req_1/wait"))
            await e.gate.until(lambda: bool(e.gate.calls))
            number = e.gate.calls[0].call
            asking.cancel()
            await e.gate.until(lambda: bool(e.gate.cancels))
            assert [c.call for c in e.gate.cancels] == [number]

    asyncio.run(scene())


def test_the_states_and_bounds_are_the_kernels() -> None:
    assert {*LIVE, *ENDED} == {*Phase, *JobState}
    assert TIMEOUT.high == KERNEL_MAX_WAIT_S


@pytest.mark.parametrize(
    ("given", "tier"),
    [
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": "default"}, "default"),
        ({"llmos": {"class": "batch"}}, "flex"),
    ],
)
def test_the_effective_tier_is_on_every_answer_and_every_chunk(
    given: dict[str, Any], tier: str
) -> None:
    async def scene() -> None:
        async with edge() as e:
            text = {"model": "echo", "prompt": "hi", **given}
            whole = await e.chat(**given)
            assert ChatAnswer.model_validate_json(whole.content).service_tier == tier
            whole = await e.post("/v1/completions", text)
            assert CompletionAnswer.model_validate_json(whole.content).service_tier == tier
            streamed = await e.chat(stream=True, **given)
            chat = [*events_of(streamed.text)][:-1]
            streamed = await e.post("/v1/completions", {**text, "stream": True})
            plain = [*events_of(streamed.text)][:-1]
            assert {ChatChunk.model_validate_json(x).service_tier for x in chat} == {tier}
            assert {CompletionAnswer.model_validate_json(x).service_tier for x in plain} == {tier}

    asyncio.run(scene())


def test_urgency_goes_to_the_kernel_from_every_inference_route() -> None:
    urgent = {"class": "interactive", "nice": -7, "deadline_ms": 1500}

    async def scene() -> None:
        async with edge() as e:
            await e.chat(llmos=urgent)
            await e.post("/v1/completions", {"model": "echo", "prompt": "hi", "llmos": urgent})
            for body in e.gate.bodies:
                assert isinstance(body, Infer)
                options = body.options
                assert options.service_class is ServiceClass.INTERACTIVE
                assert (options.nice, options.deadline_ms) == (-7, 1500)

    asyncio.run(scene())


def test_an_answer_tells_how_it_was_served() -> None:
    async def served(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        served = Served(0.25, 2, ServiceClass.BATCH, 3, 1)
        end = msgspec.structs.replace(finished(), served=served)
        gate.emit(call, *tokens("a"), end)

    async def scene() -> None:
        async with edge({Infer: served}) as e:
            answer = ChatAnswer.model_validate_json((await e.chat()).content)
            assert answer.llmos.timing.queued_ms == 250.0
            assert answer.llmos.preemptions == 2
            assert (answer.llmos.suspensions, answer.llmos.context) == (3, "recomputed")
            last = [*events_of((await e.chat(stream=True)).text)][-2]
            told = ChatChunk.model_validate_json(last).llmos
            assert told is not None
            assert told.preemptions == 2
            assert (told.suspensions, told.context) == (3, "recomputed")
            assert told.service_class == answer.llmos.service_class == "batch"  # reniced meanwhile
            assert ChatChunk.model_validate_json(last).service_tier == "priority"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("served", "told"),
    [
        (None, {"preemptions": None, "suspensions": None, "context": None}),
        (Served(0.1, 2), {"preemptions": 2, "suspensions": 0, "context": "kept"}),
        (
            Served(0.1, 0, None, 2),
            {"preemptions": 0, "suspensions": 2, "context": "snapshot"},
        ),
        (
            Served(0.1, 1, None, 2, 1),
            {"preemptions": 1, "suspensions": 2, "context": "recomputed"},
        ),
    ],
)
def test_an_answer_tells_what_became_of_its_context(
    served: Served | None, told: dict[str, Any]
) -> None:
    assert how_served(served) == told
    batch = report(Answer("req_1", "echo:1", served=served))
    assert {name: batch[name] for name in told} == told
    LlmosAnswer.model_validate(batch)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueueFull("3 requests wait for echo:1", retry_after_s=2.2), 429),
        (LoadFailed("its file is broken", retry_after_s=2.2), 503),
    ],
)
def test_a_refusal_says_where_one_stood_why_and_when_to_come_back(
    error: LLMOSError, status: int
) -> None:
    name = "req_" + "7" * 32
    error.details = {"position": 4, "reason": "they wait", "eta_s": 2.2, "request_id": name}
    response, _ = _get(
        "/v1/completions", {Infer: _raises(error)}, "POST", json={"model": "e", "prompt": "x"}
    )
    made = response.json()["error"]
    assert response.status_code == status
    assert made["details"] == error.details
    assert made["retry_after_s"] == 2.2
    assert response.headers["retry-after"] == "3"
    assert response.headers["x-request-id"] == name


def test_a_missed_deadline_is_no_reason_to_send_it_again() -> None:
    response, _ = _get(
        "/v1/completions",
        {Infer: _raises(DeadlineExceeded("too late"))},
        "POST",
        json={"model": "e", "prompt": "x"},
    )
    assert response.status_code == 504
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
