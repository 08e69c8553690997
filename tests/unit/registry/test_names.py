from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.errors import InvalidRequest
from llmos.registry.names import (
    FolderSource,
    HubSource,
    UploadSource,
    near_matches,
    normalise_name,
    parse_source,
)


def test_names_are_lowered() -> None:
    assert normalise_name("Qwen/Qwen2.5-0.5B_x") == "qwen/qwen2.5-0.5b_x"


BAD = ["", "a:b", "a/b/c", "/a", "a/", ".a", "-a", "a b", "模型", "a" * 97, "a\n", "../a", "\ud800"]


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalise_name(name)
    assert caught.value.param == "name"


@given(st.text(max_size=40))
def test_a_name_is_normal_or_refused(name: str) -> None:
    try:
        normal = normalise_name(name)
    except InvalidRequest:
        return
    assert normalise_name(normal) == normal
    assert ":" not in normal


def test_sources() -> None:
    assert parse_source("hf:org/Name") == HubSource("org/Name", None)
    assert parse_source("hf:org/name@refs/pr/1") == HubSource("org/name", "refs/pr/1")
    assert parse_source("hf:gpt2").default_name == "gpt2"
    assert parse_source("file:/a/我的 模型 V2/") == FolderSource("/a/我的 模型 V2/")
    assert parse_source("file:/a/我的 Model V2/").default_name == "model-v2"
    assert parse_source("upload:upl_1") == UploadSource("upl_1")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "hf:",
        "hf:a/b/c",
        "hf:../x",
        "hf:a/b@",
        "hf:a/b@../../c",
        "hf:a/b@x y",
        "file:relative",
        "file:",
        "file:/a\0b",
        "file:/\ud800",
        "upload:",
        "http://x/y",
        "org/name",
        "hf:a b/c",
    ],
)
def test_bad_sources(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_source(source)
    assert caught.value.param == "source"


def test_near_matches() -> None:
    known = ["stories260k", "pilot", "qwen/qwen2.5-0.5b", "echo"]
    assert near_matches("story260k", known) == ["stories260k"]
    assert near_matches("Pilto:3", known) == ["pilot"]
    assert near_matches("qwen2.5-0.5b", known)[0] == "qwen/qwen2.5-0.5b"
    assert near_matches("zzz", known) == []
