"""Images reach a remote as they came, through a file that the preparer has made."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.blob import BlobRef
from llmos.abi.inference import ChatPrompt, Prepared, PrepareItem, Sampling, WorkItem
from llmos.abi.remote import Endpoint, RemoteSpec
from llmos.drivers.openai.prepare import RemotePreparer
from llmos.drivers.openai.row import make_row
from llmos.errors import EngineFailed, InvalidRequest, StorageError

SPEC = RemoteSpec([Endpoint("http://a/v1", "m")])
IMAGES = [b"\x89PNG one", b"two"]
FAR = {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}


def blob(folder: Path, data: bytes) -> BlobRef:
    path = folder / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return BlobRef(f"sha256:{path.name}", len(data), str(path))


def image(number: int, **more: str) -> dict[str, Any]:
    made = {"type": "image", "blob": number, "media_type": "image/png"}
    return made | {"where": f"messages.1.content.{number}"} | more


def prepare(folder: Path, blobs: list[BlobRef]) -> Prepared:
    said = [{"type": "text", "text": "what?"}, image(1), image(0, detail="high")]
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [*said, FAR | {"where": "messages.1.content.3"}]},
    ]
    spill = str(folder / "spill")
    asked = PrepareItem("r", "e", "f", ChatPrompt(messages, blobs=blobs), 10, spill=spill)
    return RemotePreparer(SPEC).prepare(asked)


def work(prepared: Prepared, payload: bytes | None = None) -> WorkItem:
    return WorkItem(
        "r",
        prepared.tokens,
        Sampling(max_tokens=5),
        payload=prepared.payload if payload is None else payload,
        spill=prepared.spill,
    )


def test_they_arrive_as_they_came(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, [blob(tmp_path, data) for data in IMAGES])
    assert len(prepared.tokens) < 4096  # no image passes a message
    assert 3000 < prepared.num_tokens < 3100
    content = make_row(work(prepared), SPEC, 10_000).call.body["messages"][1]["content"]
    one, two = ("data:image/png;base64," + base64.b64encode(data).decode() for data in IMAGES)
    assert content == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": two}},
        {"type": "image_url", "image_url": {"url": one, "detail": "high"}},
        FAR,
    ]


def test_a_text_makes_no_file(tmp_path: Path) -> None:
    chat = ChatPrompt([{"role": "user", "content": "hi"}])
    asked = PrepareItem("r", "e", "f", chat, 10, spill=str(tmp_path / "spill"))
    prepared = RemotePreparer(SPEC).prepare(asked)
    assert (prepared.payload, prepared.spill, list(tmp_path.iterdir())) == (b"", "", [])


def test_files_that_are_gone_or_others(tmp_path: Path) -> None:
    blobs = [blob(tmp_path, data) for data in IMAGES]
    prepared = prepare(tmp_path, blobs)
    for payload in (b"junk", b""):
        with pytest.raises(InvalidRequest, match="what `prepare` makes"):
            make_row(work(prepared, payload), SPEC, 10_000)
    Path(prepared.spill).write_bytes(b"short")
    with pytest.raises(EngineFailed, match="not whole"):
        make_row(work(prepared), SPEC, 10_000)
    Path(prepared.spill).unlink()
    with pytest.raises(EngineFailed, match="gone"):
        make_row(work(prepared), SPEC, 10_000)
    assert blobs[0].path is not None
    Path(blobs[0].path).write_bytes(b"another")
    with pytest.raises(InvalidRequest, match="not the one"):
        prepare(tmp_path, blobs)
    Path(blobs[0].path).unlink()
    Path(tmp_path / "spill").unlink(missing_ok=True)
    with pytest.raises(StorageError):
        prepare(tmp_path, blobs)
