"""Pass 1: what is wrong with a file, and in which line."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.programs.batch import check, lines
from llmos.programs.batch.check import BadFile, check_file
from llmos.programs.batch.lines import read_lines

CHAT = "/v1/chat/completions"


def request(custom_id: Any = "a", **changes: Any) -> dict[str, Any]:
    made = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}}
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def go_on(done: int, size: int) -> bool:
    return True


def faults(path: Path, content: bytes) -> list[tuple[str, int | None, str | None]]:
    """(code, line, param) of every fault; nothing for a file that is in order."""
    path.write_bytes(content)
    try:
        check_file(str(path), CHAT, go_on)
    except BadFile as error:
        found = error.details["errors"]
        assert found["object"] == "list"
        assert all(set(one) == {"code", "message", "line", "param"} for one in found["data"])
        return [(one["code"], one["line"], one["param"]) for one in found["data"]]
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input.jsonl"


GOOD = json.dumps(request("good")).encode()


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"{", ("invalid_json_line", 2, None)),
        (b'{"custom_id": "a"} x', ("invalid_json_line", 2, None)),
        (b"[]", ("invalid_json_line", 2, None)),
        (b"null", ("invalid_json_line", 2, None)),
        (b'{"body": NaN}', ("invalid_json_line", 2, None)),
        (b"[" * 100_000, ("invalid_json_line", 2, None)),
        (b'{"custom_id": "\\ud800"}', ("invalid_json_line", 2, None)),
        (b'{"custom_id": "\xff"}', ("invalid_encoding", 2, None)),
        ('{"custom_id": "é"}'.encode("utf-16"), ("invalid_json_line", 2, None)),
        (b"{}", ("missing_required_parameter", 2, "custom_id")),
        (request(body=None), ("missing_required_parameter", 2, "body")),
        (request(url=None), ("missing_required_parameter", 2, "url")),
        (request(method=None), ("missing_required_parameter", 2, "method")),
        (request(extra=1), ("unknown_parameter", 2, "extra")),
        (request(method="GET"), ("invalid_method", 2, "method")),
        (request(method=["POST"]), ("invalid_method", 2, "method")),
        (request(url="/v1/completions"), ("mismatched_url", 2, "url")),
        (request(url=7), ("mismatched_url", 2, "url")),
        (request(body=[]), ("invalid_type", 2, "body")),
        (request(body="{}"), ("invalid_type", 2, "body")),
        (request(""), ("invalid_custom_id", 2, "custom_id")),
        (request(5), ("invalid_custom_id", 2, "custom_id")),
        (request("x" * 513), ("invalid_custom_id", 2, "custom_id")),
        (request("good"), ("duplicate_custom_id", 2, "custom_id")),
    ],
)
def test_each_fault_has_a_code_a_line_and_a_field(
    path: Path, raw: bytes | dict[str, Any], fault: tuple[str, int, str | None]
) -> None:
    bad = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    content = b"\n".join([GOOD, bad, json.dumps(request("last")).encode()])
    assert faults(path, content) == [fault]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD + b"\n",
        GOOD + b"\n\n",
        GOOD + b"\r\n",
        b"\xef\xbb\xbf" + GOOD + b"\n",
        b"\n\r\n" + GOOD + b"\n \t\n",
        b"  " + GOOD + b"\t\r\n",
    ],
)
def test_ends_of_lines_blank_lines_and_marks_are_no_faults(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert check_file(str(path), CHAT, go_on) == 1


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_request_is_refused(path: Path, content: bytes) -> None:
    assert faults(path, content) == [("empty_file", None, None)]


def test_the_line_of_a_fault_far_down_is_right(path: Path) -> None:
    content = [json.dumps(request(f"id {i} 号")).encode() for i in range(8000)]
    content[7340] = b'{"custom_id": "broken'
    path.write_bytes(b"\n".join(content))
    with pytest.raises(BadFile, match="line 7341"):
        check_file(str(path), CHAT, go_on)


def test_faults_are_told_up_to_a_bound(path: Path) -> None:
    assert len(faults(path, b"{\n" * 10_000)) == check.MAX_ERRORS


def test_an_over_long_line_is_a_fault_and_the_next_one_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lines, check):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 200)
    long = json.dumps(request("long", body={"model": "m" * 5000})).encode()
    assert len(GOOD) <= 200
    content = b"\n".join([long, GOOD, long])
    assert faults(path, content) == [("line_too_long", 1, None), ("line_too_long", 3, None)]


def test_too_many_lines_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_LINES", 3)
    assert faults(path, GOOD + b"\n" * 4) == [("too_many_lines", 4, None)]
    assert faults(path, GOOD + b"\n" * 3) == []


def test_memory_does_not_grow_with_the_file(path: Path) -> None:
    padding = "x" * 2000
    with path.open("wb") as file:
        for i in range(3000):
            file.write(json.dumps(request(str(i), body={"p": padding})).encode() + b"\n")
    tracemalloc.start()
    try:
        assert check_file(str(path), CHAT, go_on) == 3000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 6_000_000
    assert peak < 1_500_000


def test_the_check_stops_when_it_is_told_to(path: Path) -> None:
    seen = []

    def look(done: int, size: int) -> bool:
        seen.append((done, size))
        return len(seen) < 3

    path.write_bytes(b"\n".join(json.dumps(request(str(i))).encode() for i in range(5000)))
    assert check_file(str(path), CHAT, look) == -1
    assert seen[-1][0] < seen[-1][1] == path.stat().st_size


@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(1, 40))
def test_lines_are_cut_as_python_cuts_them(parts: list[bytes], limit: int) -> None:
    """Against a plain split of the whole, whatever the bytes and the bound."""
    content = b"\n".join(parts)
    whole = content.split(b"\n")
    if not whole[-1]:
        whole.pop()
    kept, lines.MAX_LINE_BYTES = lines.MAX_LINE_BYTES, limit
    try:
        found = list(read_lines(io.BytesIO(content)))
    finally:
        lines.MAX_LINE_BYTES = kept
    assert [one.number for one in found] == list(range(1, len(whole) + 1))
    for one, raw in zip(found, whole, strict=True):
        if one.raw is None:
            assert len(raw) > limit
        else:
            mark = lines.BOM if one.offset == 0 else b""
            assert one.raw == raw.removeprefix(mark).strip(b" \t\r\n")
            assert len(raw) <= limit + 1
        assert content[one.offset :].startswith(raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(
    st.lists(
        st.binary(max_size=60)
        | st.fixed_dictionaries(
            {},
            optional={
                "custom_id": _JSON | st.sampled_from(["a", "b", "c"]),
                "method": st.just("POST") | _JSON,
                "url": st.just(CHAT) | _JSON,
                "body": st.just({}) | _JSON,
            },
        ).map(lambda made: json.dumps(made).encode()),
        max_size=8,
    )
)
def test_any_bytes_are_in_order_or_refused_with_faults(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "input.jsonl"
    content = b"\n".join(parts)
    found = faults(path, content)
    assert len(found) <= len(content.split(b"\n")) + 1
    if not found:
        ids = [
            json.loads(part.removeprefix(lines.BOM))
            for part in content.split(b"\n")
            if part.strip()
        ]
        assert len({one["custom_id"] for one in ids}) == len(ids) > 0
