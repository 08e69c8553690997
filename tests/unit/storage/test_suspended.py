from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Tokens
from llmos.abi.inference import ChatPrompt, Options, Prepared, Sampling, TextPrompt, TokensPrompt
from llmos.abi.principal import Principal, ServiceClass
from llmos.abi.suspended import SuspendedRequest
from llmos.abi.syscall import Infer
from llmos.errors import StorageError
from llmos.storage import suspended
from llmos.storage.suspended import (
    FORMAT,
    MAGIC,
    decode_record,
    encode_record,
    is_snapshot_name,
    record_name,
)


def made_request(
    request_id: str = "req_1", snapshot: SnapshotRef | None = None
) -> SuspendedRequest:
    """One with something in every field that has a shape of its own."""
    return SuspendedRequest(
        request_id=request_id,
        principal=Principal("prn_1", "ten_1", "爱丽丝"),
        model_id="mdl_1",
        model="pilot",
        body=Infer("pilot", TextPrompt("你好 🐼"), Sampling(seed=7, stop=["\n"])),
        prepared=Prepared(request_id, b"\x01\0\0\0\x02\0\0\0", 2),
        service_class=ServiceClass.BATCH,
        nice=-3,
        created_ns=10,
        suspended_ns=20,
        is_held=True,
        generated=b"\x03\0\0\0",
        events=[Tokens(request_id, [3], "a")],
        num_events=1,
        snapshot=snapshot,
        started_ns=15,
        num_suspensions=1,
        trace_parent="00-x",
    )


def made_ref(path: str, data: bytes = b"", snapshot_id: str = "snp_1") -> SnapshotRef:
    digest = hashlib.sha256(data[:-32]).hexdigest()
    return SnapshotRef(
        snapshot_id, path, len(data), f"sha256:{digest}", "sha256:w", "float32", "native", 2, "ten"
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
objects = st.dictionaries(texts, anything, max_size=3)
prompts = (
    st.builds(TextPrompt, texts)
    | st.builds(TokensPrompt, st.lists(st.integers(0, 1 << 31), max_size=5))
    | st.builds(
        ChatPrompt, st.lists(objects, max_size=3), st.none() | st.lists(objects, max_size=2)
    )
)
requests = st.builds(
    SuspendedRequest,
    request_id=texts,
    principal=st.builds(Principal, texts, texts, texts),
    model_id=texts,
    model=texts,
    body=st.builds(Infer, texts, prompts, st.builds(Sampling), st.builds(Options, driver=objects)),
    prepared=st.builds(Prepared, texts, st.binary(max_size=64), st.integers(0, 16)),
    service_class=st.sampled_from(ServiceClass),
    nice=st.integers(-20, 19),
    created_ns=st.integers(0, 1 << 62),
    suspended_ns=st.integers(0, 1 << 62),
    is_held=st.booleans(),
    generated=st.binary(max_size=64),
    events=st.lists(st.builds(Tokens, texts, st.lists(st.integers(0, 9)), texts), max_size=3),
    num_events=st.integers(0, 1000),
    snapshot=st.none() | st.just(made_ref("snp_1.snap")),
)


@given(requests)
def test_what_was_encoded_comes_back(request: SuspendedRequest) -> None:
    assert decode_record(encode_record(request)) == request


@given(st.data())
def test_one_wrong_bit_or_a_cut_is_found(data: st.DataObject) -> None:
    good = encode_record(made_request(snapshot=made_ref("snp_1.snap")))
    at = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        bad = good[:at]
    else:
        bad = good[:at] + bytes([good[at] ^ 1 << data.draw(st.integers(0, 7))]) + good[at + 1 :]
    with pytest.raises(StorageError):
        decode_record(bad)


@given(st.binary(max_size=200))
def test_what_is_sealed_and_no_record_is_an_error_of_ours(body: bytes) -> None:
    sealed = struct.pack("<8sI32s", MAGIC, FORMAT, hashlib.sha256(body).digest()) + body
    with pytest.raises(StorageError):
        decode_record(sealed)


def test_a_newer_format_is_said_to_be_one() -> None:
    body = msgpack.encode(made_request())
    newer = struct.pack("<8sI32s", MAGIC, FORMAT + 1, hashlib.sha256(body).digest()) + body
    with pytest.raises(StorageError, match="format 2"):
        decode_record(newer)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "", "a/b", ".hidden", "x.req"])
def test_a_snapshot_that_lies_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(StorageError, match="elsewhere"):
        decode_record(encode_record(made_request(snapshot=made_ref(path))))


def test_what_cannot_be_encoded_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="cannot be kept"):
        encode_record(replace(made_request(), model="\ud800"))
    with pytest.raises(StorageError, match="cannot be kept"):
        encode_record(replace(made_request(), created_ns=1 << 80))
    monkeypatch.setattr(suspended, "MAX_RECORD_BYTES", 100)
    with pytest.raises(StorageError, match="bytes"):
        encode_record(made_request())


@pytest.mark.parametrize("request_id", ["", "a/b", "..", "a.b", "a\0", "x" * 97, "-x", "日"])
def test_an_id_that_is_no_name_is_refused(request_id: str) -> None:
    with pytest.raises(StorageError):
        record_name(request_id)


def test_names() -> None:
    assert record_name("req_0a-B") == "req_0a-B.req"
    assert is_snapshot_name("snp_1.snap")
    assert not any(map(is_snapshot_name, ["a.part", "a.req", "", "a b", ".a", "a\n", "x" * 129]))
