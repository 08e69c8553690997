"""A model in an ONNX file, through everything: the speech in a recording, over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.drivers.catalog import find_missing
from tests.system.server import Server

REASON = find_missing("onnx")


def test_speech_is_found(server: Server, test_data: Path, require: Callable[[str], None]) -> None:
    require("onnx")
    model = test_data / "models" / "silero_vad"
    done = server.cli("pull", str(model), "--name", "vad")
    assert done.returncode == 0, done.stderr
    shown = server.cli("show", "vad").stdout
    assert "read by onnxruntime, for voice-activity-detection" in shown
    voice = base64.b64encode((test_data / "media" / "jfk.wav").read_bytes()).decode()
    body = {"model": "vad", "inputs": [{"audio": voice}, {"audio": "bm8gc291bmQ="}]}
    with server.client() as client:
        answer = client.post("/os/v1/infer", json=body)
    assert answer.status_code == 200, answer.text
    good, bad = answer.json()["data"]
    assert [round(one["start"], 1) for one in good["output"]["segments"]] == [0.3, 3.3, 5.4, 8.2]
    assert bad["error"]["code"] == "invalid_request"


@pytest.mark.skipif(REASON is None, reason="onnxruntime is installed")
def test_who_lacks_it_is_told_the_extra(server: Server, test_data: Path) -> None:
    done = server.cli("pull", str(test_data / "models" / "silero_vad"), "--name", "vad")
    assert done.returncode != 0
    assert "pip install 'llmos[onnx]'" in done.stderr
