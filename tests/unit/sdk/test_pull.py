"""Pulls: progress and outcome, a path over the socket, an upload over the network."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.abi.registry import PullProgress
from llmos.errors import ModelRejected, NotFound, PayloadTooLarge, ServerUnreachable
from llmos.sdk.config import ClientConfig
from llmos.sdk.pull import default_name
from tests.unit.sdk.fake import MODEL, Pieces, Server, refusal, sse

PULL = "POST /os/v1/models"
REPORT = {"phase": "download", "file": "模型.safetensors", "done_bytes": 5, "total_bytes": 10}
GOOD = sse(REPORT, event="progress") + sse(MODEL, event="done")


class UploadServer(Server):
    """Takes uploads at any id."""

    def __init__(self, pull: httpx.Response, upload_status: int = 200) -> None:
        super().__init__({PULL: pull})
        self.files: dict[str, bytes] = {}
        self.discarded: list[str] = []
        self.upload_status = upload_status

    def handle(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.startswith("/os/v1/uploads/"):
            return super().handle(request)
        upload_id, _, name = request.url.path.removeprefix("/os/v1/uploads/").partition("/")
        if request.method == "DELETE":
            self.discarded.append(upload_id)
            return httpx.Response(200, json={"done": ""})
        if self.upload_status != 200:
            return refusal(self.upload_status, "payload_too_large")
        data = request.read()
        assert int(request.headers["content-length"]) == len(data)
        self.files[name] = data
        blob = {"digest": "sha256:0", "size_bytes": len(data), "path": None}
        return httpx.Response(200, json=blob)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "My Model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_bytes(b"{}")
    (model / "weights 权重.bin").write_bytes(b"w" * 2500)
    (model / "empty.txt").touch()
    (model / ".hidden").write_bytes(b"h")
    (model / "sub" / "deep.bin").write_bytes(b"d")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_bytes(b"[]")
    (model / "1_Pooling" / "notes.txt").write_bytes(b"n")
    (model / "2_Away").symlink_to(tmp_path)
    return model


def test_progress_is_told_and_the_version_returned() -> None:
    server = Server({PULL: httpx.Response(200, stream=Pieces(GOOD[:70], GOOD[70:]))})
    reports: list[PullProgress] = []
    with server.client() as client:
        version = client.models.pull("hf:org/pilot", "mine", progress=reports.append)
    assert version.ref == "pilot:1"
    assert reports == [PullProgress("download", "模型.safetensors", 5, 10)]
    assert server.body() == {"source": "hf:org/pilot", "name": "mine"}


def test_quantizing_is_asked_for_as_a_pull_is() -> None:
    route = "POST /os/v1/models/org/m:2/quantize"
    server = Server({route: lambda _: httpx.Response(200, content=GOOD)})
    reports: list[PullProgress] = []

    async def ask() -> str:
        async with server.async_client() as client:
            return (await client.models.quantize("org/m:2", "int8")).ref

    with server.client() as client:
        version = client.models.quantize("org/m:2", "int4", "small", progress=reports.append)
    assert server.body() == {"to": "int4", "name": "small"}
    assert asyncio.run(ask()) == version.ref == "pilot:1"
    assert server.body() == {"to": "int8"}
    assert len(reports) == 1


def test_a_rejected_model_is_raised_with_its_reason() -> None:
    error = {"error": {"message": "config.json is broken", "code": "model_rejected"}}
    body = sse(REPORT, event="progress") + sse(error, event="error")
    server = Server({PULL: httpx.Response(200, content=body)})
    with server.client() as client, pytest.raises(ModelRejected, match=r"config\.json is broken"):
        client.models.pull("hf:org/pilot")


def test_a_pull_that_breaks_off_is_an_error() -> None:
    server = Server({PULL: httpx.Response(200, content=sse(REPORT, event="progress"))})
    with server.client() as client, pytest.raises(ServerUnreachable, match="broke off"):
        client.models.pull("hf:org/pilot")


def test_over_the_socket_the_absolute_path_is_handed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server({PULL: httpx.Response(200, content=GOOD)})
    monkeypatch.chdir(folder.parent)
    with server.client(url=None, home=folder.parent) as client:
        client.models.pull("file:My Model")
    assert server.body() == {"source": f"file:{folder}"}


def test_over_the_network_the_files_are_sent_and_counted(folder: Path) -> None:
    server = UploadServer(httpx.Response(200, content=GOOD))
    reports: list[PullProgress] = []
    config = ClientConfig(upload_chunk_bytes=1000)
    with server.client(config=config) as client:
        client.models.pull(f"file:{folder}", progress=reports.append)
    assert server.files == {
        "1_Pooling/config.json": b"[]",
        "config.json": b"{}",
        "weights 权重.bin": b"w" * 2500,
        "empty.txt": b"",
    }
    uploads = [r for r in reports if r.phase == "upload"]
    assert [r.done_bytes for r in uploads] == [2, 4, 1004, 2004, 2504]
    assert {r.total_bytes for r in uploads} == {2504}
    sent = server.body()
    assert sent["source"].startswith("upload:upl_")
    assert sent["name"] == "my-model"
    assert server.discarded == []


def test_the_asynchronous_client_sends_the_same(folder: Path) -> None:
    server = UploadServer(httpx.Response(200, content=GOOD))

    async def pull() -> str:
        async with server.async_client() as client:
            return (await client.models.pull(f"file://{folder}")).ref

    assert asyncio.run(pull()) == "pilot:1"
    assert len(server.files) == 4


def test_a_refused_upload_or_pull_is_dropped_again(folder: Path) -> None:
    too_large = UploadServer(httpx.Response(200, content=GOOD), upload_status=413)
    with too_large.client() as client, pytest.raises(PayloadTooLarge):
        client.models.pull(f"file:{folder}")
    assert len(too_large.discarded) == 1

    error = {"error": {"message": "no", "code": "model_rejected"}}
    rejected = UploadServer(httpx.Response(200, content=sse(error, event="error")))
    with rejected.client() as client, pytest.raises(ModelRejected):
        client.models.pull(f"file:{folder}")
    sent = json.loads(rejected.requests[-1].content)["source"]
    assert [f"upload:{upload_id}" for upload_id in rejected.discarded] == [sent]


@pytest.mark.parametrize("make_empty", [True, False])
def test_nothing_is_asked_of_the_server_for_a_folder_without_files(
    tmp_path: Path, make_empty: bool
) -> None:
    source = tmp_path / "none"
    if make_empty:
        source.mkdir()
    server = UploadServer(httpx.Response(200, content=GOOD))
    with server.client() as client, pytest.raises(NotFound, match=str(source)):
        client.models.pull(f"file:{source}")
    assert server.requests == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/m/Qwen3_0.6B", "qwen3-0"),
        ("/m/模型", "model"),
        ("/m/tiny.gguf", "tiny"),
        ("/m/a b", "a-b"),
    ],
)
def test_the_default_name_is_the_folders_own(path: Any, name: str) -> None:
    assert default_name(Path(path)) == name
