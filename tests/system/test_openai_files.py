"""Files, batches and responses by the official client, against a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import pytest
from openai.types import Batch

from tests.system.server import Server

T = TypeVar("T")
WAIT_S = 60.0
ENDED = {"completed", "failed", "expired", "cancelled", "incomplete"}


def until(look: Callable[[], T], is_done: Callable[[T], bool]) -> T:
    """Poll, as a client of OpenAI's does."""
    deadline = time.monotonic() + WAIT_S
    while not is_done(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def lines_of(requests: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)


def request(number: int, text: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
    return {
        "custom_id": f"nr-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body,
    }  # fmt: skip


def run_batch(client: openai.OpenAI, content: bytes, **fields: Any) -> Batch:
    file = client.files.create(file=("输入.jsonl", content), purpose="batch")
    fields.setdefault("endpoint", "/v1/chat/completions")
    batch = client.batches.create(input_file_id=file.id, completion_window="24h", **fields)
    return until(lambda: client.batches.retrieve(batch.id), lambda b: b.status in ENDED)


def rows_of(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    if file_id is None:
        return {}
    rows = [json.loads(line) for line in client.files.content(file_id).content.splitlines()]
    found = {row["custom_id"]: row for row in rows}
    assert len(found) == len(rows), "a line is there twice"
    return found


# files


def test_files(openai_client: openai.OpenAI) -> None:
    files = openai_client.files
    data = bytes(range(256)) * 4096
    made = files.create(file=("资料 📚.bin", data), purpose="user_data")
    assert (made.filename, made.bytes, made.expires_at) == ("资料 📚.bin", len(data), None)
    assert files.content(made.id).content == data
    assert files.retrieve(made.id) == made
    kept = files.create(
        file=("b.txt", b"b"),
        purpose="vision",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert kept.expires_at == kept.created_at + 3600
    newest = [f.id for f in files.list(limit=1)]
    assert newest[:2] == [kept.id, made.id]
    assert [f.id for f in files.list(purpose="vision")] == [kept.id]
    assert next(f.id for f in files.list(order="asc", after=made.id)) == kept.id
    assert files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        files.content(made.id)


def test_a_range_of_a_file(client: httpx.Client, openai_client: openai.OpenAI) -> None:
    made = openai_client.files.create(file=("a", b"0123456789"), purpose="user_data")
    path = f"/v1/files/{made.id}/content"
    part = client.get(path, headers={"range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, b"345")
    assert part.headers["content-range"] == "bytes 3-5/10"


def test_a_refused_upload_leaves_nothing_behind(server: Server, client: httpx.Client) -> None:
    scratch, uploads = server.home / "scratch", server.home / "uploads"
    before = _names(scratch) | _names(uploads)
    refused = client.post("/v1/files", data={"purpose": "fun"}, files={"file": ("a", b"x" * 10**6)})
    assert refused.status_code == 400
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    form = {"content-type": "multipart/form-data; boundary=x"}
    cut = client.post("/v1/files", content=head + b"y" * 10**6, headers=form)
    assert cut.status_code == 400
    assert _names(scratch) | _names(uploads) == before


def _names(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.exists() else set()


def _rss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_a_file(server: Server, client: httpx.Client) -> None:
    size = 256 << 20
    head = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    )

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(size >> 20):
            yield bytes(1 << 20)
        yield b"\r\n--x--\r\n"

    before = _rss_bytes(server.pid)
    made = client.post(
        "/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert made.json()["bytes"] == size
    with client.stream("GET", f"/v1/files/{made.json()['id']}/content") as answer:
        assert sum(len(chunk) for chunk in answer.iter_bytes()) == size
    assert _rss_bytes(server.pid) - before < 64 << 20
    assert client.delete(f"/v1/files/{made.json()['id']}").status_code == 200


def test_an_idempotency_key_makes_one_file(openai_client: openai.OpenAI) -> None:
    def create(data: bytes) -> str:
        return openai_client.files.create(
            file=("a", data), purpose="user_data", extra_headers={"Idempotency-Key": "one-file"}
        ).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(create, [b"same"] * 8))) == 1
    with pytest.raises(openai.ConflictError):
        create(b"other")


# batches


def test_a_batch_of_200_lines(openai_client: openai.OpenAI) -> None:
    content = lines_of(request(i, f"第{i}行 ✅") for i in range(200))
    batch = run_batch(openai_client, content, metadata={"for": "the test"})
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (200, 200, 0)
    rows = rows_of(openai_client, batch.output_file_id)
    assert set(rows) == {f"nr-{i}" for i in range(200)}
    for i in range(200):
        response = rows[f"nr-{i}"]["response"]
        assert response["status_code"] == 200
        assert response["body"]["choices"][0]["message"]["content"] == f"第{i}行 ✅"
    assert batch.id in [b.id for b in openai_client.batches.list(limit=5)]


def test_a_wrong_line_is_that_lines_error(openai_client: openai.OpenAI) -> None:
    requests = [request(i, "ok") for i in range(5)]
    requests[1]["body"]["model"] = "missing-model"
    requests[3]["body"]["temperature"] = 9
    batch = run_batch(openai_client, lines_of(requests))
    assert batch.status == "completed"
    assert set(rows_of(openai_client, batch.output_file_id)) == {"nr-0", "nr-2", "nr-4"}
    errors = rows_of(openai_client, batch.error_file_id)
    assert errors["nr-1"]["response"]["status_code"] == 404
    assert errors["nr-1"]["response"]["body"]["error"]["code"] == "model_not_found"
    assert errors["nr-3"]["response"]["body"]["error"]["param"] == "temperature"


def test_a_file_that_is_no_batch_fails_the_batch(openai_client: openai.OpenAI) -> None:
    good = lines_of(request(i, "ok") for i in range(41))
    batch = run_batch(openai_client, good + b'{"custom_id": "broken\n' + good[:0])
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [error.line for error in batch.errors.data] == [42]
    twice = run_batch(openai_client, lines_of([request(1, "a"), request(1, "b")]))
    assert twice.errors is not None
    assert twice.errors.data is not None
    assert twice.errors.data[0].param == "custom_id"
    assert twice.output_file_id is None


@pytest.mark.parametrize(
    ("endpoint", "body", "where"),
    [
        ("/v1/completions", {"prompt": "你好"}, ("choices", 0, "text")),
        ("/v1/responses", {"input": "你好"}, ("output", 0, "content", 0, "text")),
    ],
)
def test_batches_of_other_routes(
    openai_client: openai.OpenAI, endpoint: str, body: dict[str, Any], where: tuple[Any, ...]
) -> None:
    line = {**request(1, ""), "url": endpoint, "body": {"model": "echo", **body}}
    batch = run_batch(openai_client, lines_of([line]), endpoint=endpoint)
    assert batch.status == "completed"
    found: Any = rows_of(openai_client, batch.output_file_id)["nr-1"]["response"]["body"]
    for step in where:
        found = found[step]
    assert found == "你好"


def test_a_batch_is_cancelled(openai_client: openai.OpenAI) -> None:
    slow = {"llmos": {"driver": {"delay_ms": 50}}}
    content = lines_of(request(i, "abcdefghij" * 4, **slow) for i in range(400))
    file = openai_client.files.create(file=("a.jsonl", content), purpose="batch")
    batch = openai_client.batches.create(
        input_file_id=file.id, completion_window="24h", endpoint="/v1/chat/completions"
    )
    until(
        lambda: openai_client.batches.retrieve(batch.id),
        lambda b: b.status == "in_progress" or b.status in ENDED,
    )
    cancelled = openai_client.batches.cancel(batch.id)
    assert cancelled.status in ("cancelling", "cancelled")
    ended = until(lambda: openai_client.batches.retrieve(batch.id), lambda b: b.status in ENDED)
    assert ended.status == "cancelled"
    assert ended.request_counts is not None
    assert ended.request_counts.completed < 400
    assert len(rows_of(openai_client, ended.output_file_id)) == ended.request_counts.completed


# responses


def test_responses_are_stored_and_continued(openai_client: openai.OpenAI) -> None:
    responses = openai_client.responses
    first = responses.create(
        model="echo", input="Grüße 世界", instructions="x", metadata={"a": "b"}
    )
    assert (first.output_text, first.status) == ("Grüße 世界", "completed")
    assert responses.retrieve(first.id) == first
    second = responses.create(model="echo", input="und?", previous_response_id=first.id)
    assert second.output_text == "und?"
    items = list(responses.input_items.list(second.id, order="asc"))
    assert [item.content[0].text for item in items] == ["Grüße 世界", "Grüße 世界", "und?"]  # type: ignore[union-attr]
    responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(first.id)
    unstored = responses.create(model="echo", input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(unstored.id)


def test_a_streamed_response(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(model="echo", input="abc 你好") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")]
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "abc 你好"
    assert final.output_text == "abc 你好"
    assert openai_client.responses.retrieve(final.id).output_text == "abc 你好"


def test_a_response_in_the_background(openai_client: openai.OpenAI) -> None:
    responses = openai_client.responses
    made = responses.create(model="echo", input="hinten", background=True)
    assert made.status in ("queued", "in_progress")
    done = until(lambda: responses.retrieve(made.id), lambda r: r.status in ENDED)
    assert (done.status, done.output_text) == ("completed", "hinten")
    missing = responses.create(model="nobody", input="x", background=True)
    failed = until(lambda: responses.retrieve(missing.id), lambda r: r.status in ENDED)
    assert failed.status == "failed"
    assert failed.error is not None


def test_a_background_stream_goes_on_after_any_event(openai_client: openai.OpenAI) -> None:
    text = "Zeichen für Zeichen " * 4
    slow = {"llmos": {"driver": {"delay_ms": 20}}}
    responses = openai_client.responses
    whole = list(
        responses.create(model="echo", input=text, background=True, stream=True, extra_body=slow)
    )
    numbers = [event.sequence_number for event in whole]
    assert numbers == list(range(len(whole)))
    assert len([e for e in whole if e.type == "response.output_text.delta"]) > 2
    response_id = whole[0].response.id  # type: ignore[union-attr]
    for after in (0, 4, len(whole) // 2, len(whole) - 2):
        rest = list(responses.retrieve(response_id, stream=True, starting_after=after))
        assert rest == whole[after + 1 :]
    assert whole[-1].response.output_text == text  # type: ignore[union-attr]


def test_a_background_response_is_cancelled(openai_client: openai.OpenAI) -> None:
    slow = {"llmos": {"driver": {"delay_ms": 200}}}
    responses = openai_client.responses
    made = responses.create(model="echo", input="x" * 500, background=True, extra_body=slow)
    assert responses.cancel(made.id).status == "cancelled"
    until(lambda: responses.retrieve(made.id), lambda r: r.status in ENDED)
    assert responses.retrieve(made.id).status == "cancelled"


def test_an_idempotency_key_makes_one_response(openai_client: openai.OpenAI) -> None:
    def create(text: str) -> tuple[str, str]:
        made = openai_client.responses.create(
            model="echo", input=text, extra_headers={"Idempotency-Key": "one-response"}
        )
        return made.id, made.output_text

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(create, ["same"] * 6))
    assert len(made) == 1
    assert made.pop()[1] == "same"
    with pytest.raises(openai.ConflictError):
        create("other")


# tenants and restarts


def test_tenants_do_not_see_each_other(server: Server, openai_client: openai.OpenAI) -> None:
    file = openai_client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    response = openai_client.responses.create(model="echo", input="secret")
    with server.client() as admin:
        made = admin.post("/os/v1/keys", json={"name": "stranger", "tenant": "elsewhere"})
    with server.openai(token=made.json()["secret"]) as stranger:
        assert list(stranger.files.list()) == []
        for ask in (
            lambda: stranger.files.retrieve(file.id),
            lambda: stranger.files.content(file.id),
            lambda: stranger.files.delete(file.id),
            lambda: stranger.responses.retrieve(response.id),
            lambda: stranger.responses.create(
                model="echo", input="x", previous_response_id=response.id
            ),
            lambda: stranger.batches.create(
                input_file_id=file.id, completion_window="24h", endpoint="/v1/chat/completions"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()


def test_what_was_answered_survives_a_power_cut(own_server: Server) -> None:
    own_server.start()
    with own_server.openai() as client:
        file = client.files.create(file=("a", b"kept"), purpose="user_data")
        response = client.responses.create(model="echo", input="kept too")
        background = client.responses.create(model="echo", input="made later", background=True)
    own_server.kill()
    own_server.start()
    with own_server.openai() as client:
        assert client.files.content(file.id).content == b"kept"
        assert client.responses.retrieve(response.id).output_text == "kept too"
        done = until(lambda: client.responses.retrieve(background.id), lambda r: r.status in ENDED)
        assert done.output_text == "made later"


def test_a_stream_whose_response_was_begun_anew_says_so(own_server: Server) -> None:
    own_server.start()
    text = "0123456789" * 3
    slow = {"llmos": {"driver": {"delay_ms": 60}}}
    with own_server.openai() as client:
        stream = client.responses.create(
            model="echo", input=text, background=True, stream=True, extra_body=slow
        )
        seen = [next(stream) for _ in range(7)]  # two pieces of the text among them
    own_server.kill()
    own_server.start()
    response_id = seen[0].response.id  # type: ignore[union-attr]
    with own_server.openai() as client:
        rest = client.get(
            f"/responses/{response_id}?stream=true&starting_after={seen[-1].sequence_number}",
            cast_to=httpx.Response,
        ).text
        assert "offset_lost" in rest
        done = until(lambda: client.responses.retrieve(response_id), lambda r: r.status in ENDED)
        assert (done.status, done.output_text) == ("completed", text)
        again = list(client.responses.retrieve(response_id, stream=True))
    assert again[-1].type == "response.completed"
    deltas = [e.delta for e in again if e.type == "response.output_text.delta"]
    assert "".join(deltas) == text
