"""`llmos infer`: what it asks for, and how answers are told."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.test_jobs import ok
from tests.unit.sdk.fake import Server

INFER = "POST /os/v1/infer"


def answer(*outputs: Any, kind: str = "text-classification") -> Any:
    data = [{"index": i, **output} for i, output in enumerate(outputs)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return ok({"model": "m:1", "kind": kind, "data": data, "usage": usage, "llmos": {}})


def test_texts_files_and_parameters(server: Server, llmos: Run, tmp_path: Path) -> None:
    server.routes[INFER] = answer({"output": [{"label": "good"}]}, {"output": {"text": "a cat"}})
    (tmp_path / "a.png").write_bytes(b"png")
    done = llmos("infer", "m", "好", '{"text": "a"}', "--image", str(tmp_path / "a.png"),
               "--param", "top_k=3", "--param", "prefix=say", "--kind", "k")  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.splitlines() == ['[{"label":"good"}]', "a cat"]
    assert server.body() == {
        "model": "m",
        "inputs": ["好", {"text": "a"}, {"image": base64.b64encode(b"png").decode()}],
        "kind": "k",
        "params": {"top_k": 3, "prefix": "say"},
    }


def test_a_bad_input_is_told_and_the_others_are_answered(server: Server, llmos: Run) -> None:
    wrong = {"error": {"code": "invalid_request", "message": "no text", "param": None}}
    server.routes[INFER] = answer({"output": {"text": "good"}, "note": "cut to 4 tokens"}, wrong)
    done = llmos("infer", "m", stdin="a\n\n")
    assert (done.code, done.out) == (1, "good\n")
    assert "input 0: cut to 4 tokens" in done.err
    assert "input 1: no text" in done.err
    assert server.body()["inputs"] == ["a", ""]
    plain = llmos("infer", "m", "a", "b", "--json").json
    assert plain[0] == {"index": 0, "output": {"text": "good"}, "note": "cut to 4 tokens"}
    assert plain[1] == {"index": 1, "error": {"code": "invalid_request", "message": "no text"}}


def test_sound_goes_to_files(server: Server, llmos: Run, tmp_path: Path) -> None:
    sounds = [
        {"output": {"audio": base64.b64encode(data).decode(), "seconds": 1.5}}
        for data in (b"RIFF0", b"RIFF1")
    ]
    server.routes[INFER] = answer(*sounds, kind="text-to-speech")
    done = llmos("infer", "m", "a", "b", "-o", str(tmp_path / "say.wav"))
    assert (done.code, done.out.splitlines()[0]) == (0, '{"seconds":1.5}')
    assert (tmp_path / "say.wav").read_bytes() == b"RIFF0"
    assert (tmp_path / "say-1.wav").read_bytes() == b"RIFF1"
    assert "--out" in llmos("infer", "m", "a").err
    server.routes[INFER] = answer({"output": {"text": "x"}})
    refused = llmos("infer", "m", "a", "-o", str(tmp_path / "x.wav"))
    assert (refused.code, "makes none" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "words", [("--param", "x"), ("--image", "/nowhere.png"), ("--audio", "/nowhere.wav")]
)
def test_what_cannot_be_read_is_refused(server: Server, llmos: Run, words: tuple[str, str]) -> None:
    assert llmos("infer", "m", "a", *words).code == 2
    assert server.requests == []
