"""/v1/files over a store in memory: every form a client may send, and many it may not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.syscall_jobs import AddFile
from llmos.shapes.answers import ErrorAnswer
from llmos.shapes.files import FileObject, FilePage
from tests.unit.api.fake_gate import CREATED_NS, SECRET, USER_SECRET, Edge, edge
from tests.unit.api.fake_store import FakeStore

DATA = b'{"custom_id": "a"}\r\n\r\n--xx\r\n' * 300
TYPE = "multipart/form-data; boundary=xx"


@contextlib.asynccontextmanager
async def filing(**limits: Any) -> AsyncIterator[tuple[Edge, FakeStore]]:
    store = FakeStore()
    async with edge(store.scripts, **limits) as e:
        store.sink = e.sink
        yield e, store


def play(scene: Callable[[Edge, FakeStore], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        async with filing(**limits) as (e, store):
            await scene(e, store)
            assert not e.sink.files, "nothing is left of an upload"

    asyncio.run(run())


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    return (
        f'--xx\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        + value
        + b"\r\n"
    )


async def post(e: Edge, body: bytes, content_type: str = TYPE, **headers: str) -> httpx.Response:
    return await e.client.post(
        "/v1/files", content=body, headers={"content-type": content_type, **headers}
    )


async def upload(e: Edge, data: bytes = DATA, name: str = "a.jsonl", **fields: str) -> Any:
    fields.setdefault("purpose", "user_data")
    response = await e.client.post("/v1/files", data=fields, files={"file": (name, data)})
    assert response.status_code == 200, response.text
    return FileObject.model_validate_json(response.content).model_dump()


def test_a_file_goes_in_and_comes_out() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await upload(e, name="测试 👋.jsonl", purpose="batch")
        assert (made["filename"], made["bytes"]) == ("测试 👋.jsonl", len(DATA))
        assert made["expires_at"] == CREATED_NS // 10**9 + 2_592_000
        shown = (await e.client.get(f"/v1/files/{made['id']}")).json()
        assert shown == made
        content = await e.client.get(f"/v1/files/{made['id']}/content")
        assert content.content == DATA
        assert content.headers["content-length"] == str(len(DATA))
        assert "%E6%B5%8B" in content.headers["content-disposition"]
        gone = await e.client.delete(f"/v1/files/{made['id']}")
        assert gone.json() == {"id": made["id"], "object": "file", "deleted": True}
        assert (await e.client.get(f"/v1/files/{made['id']}")).status_code == 404
        assert e.source.num_open == 0

    play(scene)


@pytest.mark.parametrize("size", [0, 1, 70_000])
@pytest.mark.parametrize("file_first", [False, True])
def test_fields_come_in_any_order(size: int, file_first: bool) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        data = b"\r\n--x" * (size // 5) + b"x" * (size % 5)
        parts = [part("purpose", b"vision"), part("file", data, "a")]
        body = b"".join(reversed(parts) if file_first else parts) + b"--xx--\r\nepilogue"
        made = (await post(e, body)).json()
        assert (made["purpose"], made["bytes"], made["expires_at"]) == ("vision", size, None)
        content = await e.client.get(f"/v1/files/{made['id']}/content")
        assert content.content == data

    play(scene)


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=20))
def test_any_bytes_survive_any_splitting(data: bytes, cuts: list[int]) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        whole = part("file", data, "a") + part("purpose", b"evals") + b"--xx--\r\n"

        async def pieces() -> AsyncIterator[bytes]:
            at = 0
            for cut in cuts:
                yield whole[at : at + cut]
                at += cut
            yield whole[at:]

        if b"\r\n--xx" in data:
            return
        response = await e.client.post(
            "/v1/files", content=pieces(), headers={"content-type": TYPE}
        )
        assert response.status_code == 200, response.text
        assert list(e.sink.kept.values()) == [data]

    play(scene)


_PIECES = st.sampled_from(
    [
        b"--xx", b"--xx--", b"\r\n", b"\r", b"\n", b"-", b"\0", b":", b";", b"=", b'"', b" ",
        b"Content-Disposition: form-data", b'; name="file"', b'; filename="a"', b'; name="purpose"',
        b"purpose", b"user_data", "é".encode(), b"\xff", b"x" * 100,
    ]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(_PIECES, max_size=30).map(b"".join))
def test_no_garbage_is_a_fault_of_ours(body: bytes) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        response = await post(e, body)
        assert response.status_code in (200, 400), response.text
        assert len(store.files) == (response.status_code == 200)

    play(scene)


def test_names_are_the_last_part_of_a_path() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        for given_name, kept in (
            ("../../etc/passwd", "passwd"),
            ("C:\\\\temp\\\\a.txt", "a.txt"),
            ("/日本/語.txt", "語.txt"),
            ("say %22hi%22", 'say "hi"'),
        ):
            body = part("purpose", b"user_data") + part("file", b"x", given_name) + b"--xx--\r\n"
            response = await post(e, body)
            assert response.json()["filename"] == kept, response.text

    play(scene)


PURPOSE = part("purpose", b"user_data")
FILE = part("file", b"data", "a.txt")
END = b"--xx--\r\n"

BAD: dict[str, tuple[bytes, str, int]] = {
    "garbage": (b"this is no form", "body", 400),
    "nothing": (b"", "body", 400),
    "truncated in the file": (PURPOSE + FILE[:-4], "body", 400),
    "no closing boundary": (PURPOSE + FILE, "body", 400),
    "no parts": (b"--xx--\r\n", "file", 400),
    "no file": (PURPOSE + END, "file", 400),
    "no purpose": (FILE + END, "purpose", 400),
    "unknown purpose": (FILE + part("purpose", b"fun") + END, "purpose", 400),
    "two files": (PURPOSE + FILE + FILE + END, "file", 400),
    "two purposes": (PURPOSE + PURPOSE + FILE + END, "purpose", 400),
    "file as text": (PURPOSE + part("file", b"x") + END, "file", 400),
    "file without a name": (PURPOSE + part("file", b"x", "") + END, "file", 400),
    "only dots": (PURPOSE + part("file", b"x", "a/..") + END, "file", 400),
    "name of 300 bytes": (PURPOSE + part("file", b"x", "é" * 150) + END, "file", 400),
    "null in the name": (PURPOSE + part("file", b"x", "a\0b") + END, "body", 400),
    "a name not in UTF-8": (
        PURPOSE + part("file", b"x", "QQ").replace(b"QQ", b"\xff\xfe") + END, "body", 400,
    ),
    "an unknown field": (PURPOSE + FILE + part("purpos", b"x") + END, "purpos", 400),
    "a huge field name": (part("x" * 200, b"1") + FILE + END, "body", 400),
    "a huge header": (part("x" * 5000, b"1") + FILE + END, "body", 400),
    "a huge purpose": (part("purpose", b"x" * 2000) + FILE + END, "purpose", 400),
    "purpose not UTF-8": (part("purpose", b"\xff") + FILE + END, "purpose", 400),
    "no name": (
        b"--xx\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
        "content-disposition", 400,
    ),
    "no disposition": (b"--xx\r\nA: b\r\n\r\nx\r\n" + END, "content-disposition", 400),
    "base64": (
        b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\nxxxx\r\n" + END,
        "content-transfer-encoding", 400,
    ),
    "no anchor": (
        PURPOSE + FILE + part("expires_after[seconds]", b"3600") + END,
        "expires_after.anchor", 400,
    ),
    "too soon": (
        PURPOSE + part("expires_after[anchor]", b"created_at")
        + part("expires_after[seconds]", b"60") + FILE + END, "expires_after.seconds", 400,
    ),
    "no number": (
        PURPOSE + part("expires_after[anchor]", b"created_at")
        + part("expires_after[seconds]", "٣٦٠٠".encode()) + FILE + END,
        "expires_after.seconds", 400,
    ),
    "too large": (PURPOSE + part("file", b"x" * 9000, "a") + END, "", 413),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_form_is_refused_and_nothing_is_left(name: str) -> None:
    body, param, status = BAD[name]

    async def scene(e: Edge, store: FakeStore) -> None:
        response = await post(e, body)
        assert response.status_code == status, response.text
        error = ErrorAnswer.model_validate_json(response.content).error
        assert (error.param or "") == param, error
        assert not store.files

    play(scene, max_upload_bytes=8192)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\\"b"',
        "application/json",
        "",
    ],
)
def test_a_boundary_must_be_named(content_type: str) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        response = await post(e, PURPOSE + FILE + END, content_type)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "content-type"

    play(scene)


def test_ten_gigabytes_are_refused_before_they_come() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        response = await post(e, b"--xx", **{"content-length": "10737418240"})
        assert response.status_code == 413

    play(scene, max_upload_bytes=2**30)


def test_a_client_that_leaves_leaves_nothing() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        messages = iter(
            [
                {"type": "http.request", "body": PURPOSE + FILE[:-4], "more_body": True},
                {"type": "http.disconnect"},
            ]
        )
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [
            (b"authorization", f"Bearer {SECRET}".encode()),
            (b"content-type", TYPE.encode()),
        ]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/files", "raw_path": b"/v1/files",
            "query_string": b"", "headers": headers, "root_path": "",
        }  # fmt: skip
        await e.app(scope, receive, send)
        assert not sent
        assert e.sink.broken == ["file"]
        assert not store.files

    play(scene)


def test_a_page_follows_the_one_before() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        ids = [(await upload(e, name=f"{i}"))["id"] for i in range(5)]
        await upload(e, purpose="vision")
        get = e.client.get
        first = FilePage.model_validate_json(
            (await get("/v1/files?purpose=user_data&limit=2&order=asc")).content
        )
        assert [f.id for f in first.data] == ids[:2]
        assert (first.first_id, first.last_id, first.has_more) == (ids[0], ids[1], True)
        rest = (await get(f"/v1/files?purpose=user_data&order=asc&after={ids[1]}")).json()
        assert [f["id"] for f in rest["data"]] == ids[2:]
        newest = (await get("/v1/files")).json()["data"]
        assert newest[0]["purpose"] == "vision"
        for query in ("limit=0", "limit=10001", "limit=x", "order=up", "purpos=batch", "after="):
            assert (await get(f"/v1/files?{query}")).status_code == 400

    play(scene)


def test_one_tenants_slow_uploads_leave_room_for_anothers() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield PURPOSE + FILE[:-4]
            begun.set()
            await go_on.wait()
            yield FILE[-4:] + END

        slow = asyncio.ensure_future(
            e.client.post("/v1/files", content=slowly(), headers={"content-type": TYPE})
        )
        await begun.wait()
        refused = await post(e, PURPOSE + FILE + END)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
        others = await post(e, PURPOSE + FILE + END, authorization=f"Bearer {USER_SECRET}")
        assert others.status_code == 200, others.text
        go_on.set()
        assert (await slow).status_code == 200
        assert (await post(e, PURPOSE + FILE + END)).status_code == 200
        assert len(store.files) == 3

    play(scene, max_tenant_uploads=1)


def test_another_tenants_file_is_not_there() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await upload(e)
        stranger = {"authorization": f"Bearer {USER_SECRET}"}
        path = f"/v1/files/{made['id']}"
        for method, at in (("GET", path), ("GET", path + "/content"), ("DELETE", path)):
            assert (await e.client.request(method, at, headers=stranger)).status_code == 404
        assert (await e.client.get("/v1/files", headers=stranger)).json()["data"] == []
        assert store.files

    play(scene)


def test_an_idempotency_key_makes_one_file() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        body = PURPOSE + FILE + END
        key = {"idempotency-key": "k1"}
        first, again = await post(e, body, **key), await post(e, body, **key)
        assert first.json() == again.json()
        assert len(store.files) == 1
        other = await post(e, PURPOSE + part("file", b"other", "a.txt") + END, **key)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_mismatch")
        assert (await post(e, body, **{"idempotency-key": "x" * 256})).status_code == 400
        digests = {
            b.idempotency.request_digest
            for b in e.gate.bodies
            if isinstance(b, AddFile) and b.idempotency
        }
        assert len(digests) == 2

    play(scene)


RANGES = [
    ("bytes=0-9", 206, (0, 10)),
    ("bytes=5-", 206, (5, None)),
    ("bytes=-7", 206, (-7, None)),
    ("bytes=0-999999", 206, (0, None)),
    ("bytes=-999999", 206, (0, None)),
    ("bytes=9-3", 200, (0, None)),
    ("bytes=0-1,4-5", 200, (0, None)),
    ("lines=1-2", 200, (0, None)),
    ("bytes=-", 200, (0, None)),
    ("bytes=-0", 416, None),
    ("bytes=999999-", 416, None),
]


@pytest.mark.parametrize(("header", "status", "cut"), RANGES)
def test_ranges(header: str, status: int, cut: tuple[int, int | None] | None) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        data = bytes(range(256)) * 10
        path = f"/v1/files/{(await upload(e, data))['id']}/content"
        response = await e.client.get(path, headers={"range": header})
        assert response.status_code == status
        if cut is None:
            assert response.headers["content-range"] == "bytes */2560"
            return
        assert response.content == data[slice(*cut)]
        stale = {"range": header, "if-range": '"old"'}
        assert (await e.client.get(path, headers=stale)).content == data
        fresh = {"range": header, "if-range": response.headers["etag"]}
        assert (await e.client.get(path, headers=fresh)).content == data[slice(*cut)]

    play(scene)


def test_a_blob_that_is_gone_is_an_error_and_not_half_an_answer() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        path = f"/v1/files/{(await upload(e))['id']}/content"
        e.sink.kept.clear()
        response = await e.client.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_error")

    play(scene)
