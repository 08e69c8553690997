"""Our own API, models, keys, health: shapes, rights and refusals."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from llmos.abi.driver import MemoryReport
from llmos.abi.memory import DeviceMemory, Holding, LackOfRoom, MemoryInfo
from llmos.abi.principal import Key, Role, ServiceClass
from llmos.abi.syscall import (
    AddKey,
    Done,
    Health,
    HealthReport,
    KeyList,
    KillProcess,
    ListKeys,
    ListProcesses,
    ListReplicas,
    ListWorkers,
    LoadModel,
    Model,
    NewKey,
    PinModel,
    ProcessInfo,
    ProcessList,
    RemoveModel,
    ReplicaInfo,
    ReplicaList,
    RevokedKey,
    RevokeKey,
    ShowMemory,
    ShowModel,
    Status,
    StatusInfo,
    Syscall,
    UnloadModel,
    WorkerInfo,
    WorkerList,
)
from llmos.api.app import ROUTES
from llmos.errors import StorageError
from llmos.shapes.answers import ErrorAnswer, ModelCards
from tests.unit.api.fake_gate import CREATED_NS, SECRET, USER_SECRET, FakeGate, Script, edge, model

KEY = Key("key_1", "bob", "ten_1", "prn_1", Role.USER, ServiceClass.BATCH, 1.0, CREATED_NS)
UPLOAD = "upl_" + "0" * 32


def _says(result: Any) -> Script:
    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.reply(call, result)

    return script


REPLICA = ReplicaInfo(
    "rep_1", "echo:1", "echo", "ready", "wrk_1", 4, 1, 0, 10, MemoryReport(5), "f32", "cpu", True,
    CREATED_NS, "", 0,
)  # fmt: skip
PROCESS = ProcessInfo(
    "req_1", "request", "running", "echo:1", "ten_1", "bob", ServiceClass.DEFAULT, 0, 3, 1,
    CREATED_NS, None, None, "",
)  # fmt: skip
STATUS = StatusInfo(True, [], "0.1", 1, CREATED_NS, 0, 0, 10, 9, 8)
MEMORY = MemoryInfo(
    [DeviceMemory("cpu", 10, 9, 8, None, [Holding("rep_1", "replica", "echo:1", 8)])],
    [LackOfRoom("pilot:1", 5, 1.5, "echo:1 is pinned")],
)

CASES: list[tuple[str, str, Any, dict[type, Script], Any]] = [
    ("GET", "/os/v1/models/echo:1", None, {}, ("ref", None)),
    (
        "POST",
        "/os/v1/models/org/echo:1/load",
        None,
        {LoadModel: _says(Done("rep_1"))},
        ("done", "rep_1"),
    ),
    ("POST", "/os/v1/models/echo/unload", None, {UnloadModel: _says(Done("x"))}, ("done", "x")),
    (
        "POST",
        "/os/v1/models/org/echo:1/pin",
        None,
        {PinModel: _says(Done("rep_1"))},
        ("done", "rep_1"),
    ),
    ("DELETE", "/os/v1/models/echo/pin", None, {PinModel: _says(Done("x"))}, ("done", "x")),
    ("GET", "/os/v1/memory", None, {ShowMemory: _says(MEMORY)}, ("devices", None)),
    (
        "DELETE",
        "/os/v1/models/echo:1",
        None,
        {RemoveModel: _says(Model(model()))},
        ("name", "echo"),
    ),
    (
        "GET",
        "/os/v1/replicas",
        None,
        {ListReplicas: _says(ReplicaList([REPLICA]))},
        ("replicas", None),
    ),
    (
        "GET",
        "/os/v1/workers",
        None,
        {ListWorkers: _says(WorkerList([WorkerInfo("wrk_1", "replica", 7, "ready", None, 1, 2)]))},
        ("workers", None),
    ),
    (
        "GET",
        "/os/v1/processes",
        None,
        {ListProcesses: _says(ProcessList([PROCESS]))},
        ("processes", None),
    ),
    (
        "DELETE",
        "/os/v1/processes/req_1",
        None,
        {KillProcess: _says(Done("req_1"))},
        ("done", "req_1"),
    ),
    (
        "DELETE",
        "/v1/models/org/echo:1",
        None,
        {RemoveModel: _says(Model(model()))},
        ("deleted", True),
    ),
    ("GET", "/os/v1/status", None, {Status: _says(STATUS)}, ("ready", True)),
    ("GET", "/os/v1/keys", None, {ListKeys: _says(KeyList([KEY]))}, ("keys", None)),
    (
        "POST",
        "/os/v1/keys",
        {"name": "bob", "tenant": "ten_1"},
        {AddKey: _says(NewKey(KEY, "s"))},
        ("secret", "s"),
    ),
    (
        "DELETE",
        "/os/v1/keys/bob",
        None,
        {RevokeKey: _says(RevokedKey(KEY))},
        ("max_class", "batch"),
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "scripts", "expected"), CASES)
def test_a_system_call_per_route(
    method: str, path: str, body: Any, scripts: dict[type, Script], expected: tuple[str, Any]
) -> None:
    async def show(gate: FakeGate, call: Syscall) -> None:
        gate.reply(call, Model(model()))

    async def scene() -> None:
        async with edge({ShowModel: show, **scripts}) as e:
            response = await e.client.request(method, path, json=body)
            assert response.status_code == 200, response.text
            made = response.json()
            assert "type" not in made
            key, value = expected
            if key == "ref":
                assert (made["name"], made["version"]) == ("echo", "1")
            elif value is None:
                assert len(made[key]) == 1
            else:
                assert made[key] == value

    asyncio.run(scene())


def test_refs_with_slashes_and_colons_arrive_whole() -> None:
    async def scene() -> None:
        async with edge({LoadModel: _says(Done())}) as e:
            await e.client.post("/os/v1/models/org/name:1/load")
            await e.client.post("/os/v1/models/org%2Fname%3A1/load")
            assert e.gate.bodies == [LoadModel("org/name:1")] * 2

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("request_body", "keep_alive_s"),
    [
        ({}, None),
        ({"content": b""}, None),
        ({"content": b"", "headers": {"content-type": "application/json"}}, None),
        ({"json": {}}, None),
        ({"json": {"keep_alive_s": None}}, None),
        ({"json": {"keep_alive_s": 0}}, 0.0),
        ({"json": {"keep_alive_s": 3_153_600_000}}, 3_153_600_000.0),
    ],
)
def test_a_load_may_say_how_long_to_stay(
    request_body: dict[str, Any], keep_alive_s: float | None
) -> None:
    async def scene() -> None:
        async with edge({LoadModel: _says(Done())}) as e:
            response = await e.client.post("/os/v1/models/echo/load", **request_body)
            assert response.status_code == 200, response.text
            assert e.gate.bodies == [LoadModel("echo", keep_alive_s)]

    asyncio.run(scene())


@pytest.mark.parametrize("dtype", [None, "auto", "float32", "bfloat16", "float16", "int8", "int4"])
def test_a_load_may_say_in_which_type(dtype: str | None) -> None:
    async def scene() -> None:
        async with edge({LoadModel: _says(Done())}) as e:
            response = await e.client.post("/os/v1/models/echo/load", json={"dtype": dtype})
            assert response.status_code == 200, response.text
            assert e.gate.bodies == [LoadModel("echo", dtype=dtype)]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        ({"json": {"keep_alive_s": -1}}, "keep_alive_s"),
        ({"json": {"keep_alive_s": 1e300}}, "keep_alive_s"),
        ({"json": {"keep_alive_s": "10m"}}, "keep_alive_s"),
        ({"json": {"keep_alive_s": True}}, "keep_alive_s"),
        ({"json": {"dtype": "int3"}}, "dtype"),
        ({"json": {"dtype": 8}}, "dtype"),
        ({"json": {"keep_alive": 5}}, "keep_alive"),
        ({"content": b"{}"}, "content-type"),
    ],
)
def test_a_bad_load_is_400_naming_the_field(request_body: dict[str, Any], param: str) -> None:
    async def scene() -> None:
        async with edge({LoadModel: _says(Done())}) as e:
            response = await e.client.post("/os/v1/models/echo/load", **request_body)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
            assert e.gate.bodies == []

    asyncio.run(scene())


def test_a_pin_is_set_and_taken_away() -> None:
    async def scene() -> None:
        async with edge({PinModel: _says(Done())}) as e:
            await e.client.post("/os/v1/models/org/name:1/pin")
            await e.client.delete("/os/v1/models/org/name:1/pin")
            assert e.gate.bodies == [PinModel("org/name:1"), PinModel("org/name:1", pinned=False)]

    asyncio.run(scene())


def test_the_ledger_is_told_whole() -> None:
    async def scene() -> None:
        async with edge({ShowMemory: _says(MEMORY)}) as e:
            made = (await e.client.get("/os/v1/memory")).json()
            (device,) = made["devices"]
            assert (device["available_bytes"], device["holdings"][0]["kind"]) == (None, "replica")
            assert made["lacking"][0]["reason"] == "echo:1 is pinned"
            assert made["disk_free_bytes"] == 0

    asyncio.run(scene())


def test_classes_go_by_name() -> None:
    async def scene() -> None:
        async with edge({ListProcesses: _says(ProcessList([PROCESS]))}) as e:
            (line,) = (await e.client.get("/os/v1/processes")).json()["processes"]
            assert line["service_class"] == "default"
            assert line["created_ns"] == CREATED_NS

    asyncio.run(scene())


def test_openais_model_list() -> None:
    async def scene() -> None:
        async with edge() as e:
            listed = ModelCards.model_validate_json((await e.client.get("/v1/models")).content)
            assert [c.id for c in listed.data] == ["echo", "pilot", "pilot:1"]
            assert listed.data[0].created == CREATED_NS // 10**9
            assert (await e.client.get("/v1/models/echo")).json()["id"] == "echo"
            missing = await e.client.get("/v1/models/ech")
            assert (missing.status_code, missing.json()["error"]["code"]) == (
                404,
                "model_not_found",
            )

    asyncio.run(scene())


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic " + SECRET, SECRET, "Bearer", ""])
def test_every_route_but_health_needs_a_key(header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}

    async def scene() -> None:
        async with edge() as e:
            e.client.headers.pop("authorization")
            for spec in ROUTES:
                path = re.sub(r"{\w+(:path)?}", "x", spec.path.replace("{upload_id}", UPLOAD))
                response = await e.client.request(spec.method, path, headers=headers)
                if not spec.needs_key:
                    assert spec.path in {"/healthz", "/readyz"}
                    assert response.status_code == 200
                    continue
                assert response.status_code == 401, path
                assert response.json()["error"]["code"] == "invalid_api_key"
            assert all(isinstance(body, Health) for body in e.gate.bodies)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/chat", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/chat/completions/", 404),
        ("PUT", f"/os/v1/uploads/{UPLOAD}", 405),
        ("GET", "/os/v1/models/" + "x" * 300, 404),
        ("GET", "/os/v1/models/%00", 404),
        ("GET", "/os/v1/models/%ff%fe", 404),
    ],
)
def test_what_is_not_there_is_an_envelope(method: str, path: str, status: int) -> None:
    async def scene() -> None:
        async with edge() as e:
            response = await e.client.request(method, path)
            assert response.status_code == status
            ErrorAnswer.model_validate_json(response.content)
            assert response.headers["x-request-id"]
            if status == 405:
                assert response.headers["allow"]

    asyncio.run(scene())


def test_ready_says_why_not() -> None:
    async def scene() -> None:
        async with edge({Health: _says(HealthReport(False, ["no model"]))}) as e:
            response = await e.client.get("/readyz")
            assert response.status_code == 503
            assert response.json() == {"ready": False, "problems": ["no model"]}
            assert (await e.client.get("/healthz")).status_code == 200

    asyncio.run(scene())


def test_a_kernel_that_does_not_answer_is_not_healthy() -> None:
    async def silent(gate: FakeGate, call: Syscall) -> None:
        return None

    async def scene() -> None:
        async with edge({Health: silent}, health_timeout_s=0.01) as e:
            assert (await e.client.get("/healthz")).status_code == 503
            assert (await e.client.get("/readyz")).json()["problems"]

    asyncio.run(scene())


def test_metrics_are_for_those_who_may_read_the_system() -> None:
    async def scene() -> None:
        async with edge() as e:
            response = await e.client.get("/metrics")
            assert (response.status_code, response.text) == (200, "up 1\n")
            assert response.headers["content-type"].startswith("text/plain")
            user = {"authorization": f"Bearer {USER_SECRET}"}
            assert (await e.client.get("/metrics", headers=user)).status_code == 403

    asyncio.run(scene())


@pytest.mark.parametrize("weight", [0, -1, 5e-324, 0.0009, 1000.1, 10**30, "2", True])
def test_a_weight_no_share_can_be_divided_by_is_refused(weight: Any) -> None:
    async def scene() -> None:
        async with edge() as e:
            body = {"name": "a", "tenant": "t", "weight": weight}
            response = await e.client.post("/os/v1/keys", json=body)
            assert (response.status_code, response.json()["error"]["param"]) == (400, "weight")
            assert e.gate.bodies == []

    asyncio.run(scene())


def test_a_fault_of_ours_is_an_envelope_without_its_innards() -> None:
    async def nonsense(gate: FakeGate, call: Syscall) -> None:
        raise StorageError("disk trouble")

    async def scene() -> None:
        async with edge({ListKeys: nonsense}) as e:
            response = await e.client.get("/os/v1/keys")
            assert (response.status_code, response.json()["error"]["code"]) == (
                503,
                "storage_error",
            )
            e.app.routes[0].app._handler = _raises
            broken = await e.chat()
            assert broken.status_code == 500
            assert "secret detail" not in broken.text

    asyncio.run(scene())


async def _raises(call: Any) -> None:
    raise ZeroDivisionError("secret detail")


def test_the_openapi_document_names_every_route() -> None:
    async def scene() -> None:
        async with edge() as e:
            made = (await e.client.get("/openapi.json")).json()
            named = {(m.upper(), p) for p, ops in made["paths"].items() for m in ops}
            assert named == {(s.method, s.path.replace(":path", "")) for s in ROUTES}
            refs = set(_refs(made))
            assert {r.rpartition("/")[2] for r in refs} <= set(made["components"]["schemas"])
            chat = made["components"]["schemas"]["ChatBody"]["properties"]
            assert {"messages", "llmos", "top_k"} <= set(chat)
            load = made["paths"]["/os/v1/models/{ref}/load"]["post"]["requestBody"]
            assert not load["required"]
            pull = made["paths"]["/os/v1/models"]["post"]["requestBody"]
            assert pull["required"]

    asyncio.run(scene())


def _refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for inner in value.values() for r in _refs(inner)]
    return [r for inner in value for r in _refs(inner)] if isinstance(value, list) else []
