"""An OpenVINO model through the whole system; and what is said where its engine is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.drivers.catalog import find_missing
from tests.system.server import Server
from tests.system.stories import ask, check_alone, check_among, check_started_again
from tests.unit.openvino_file import make_openvino
from tests.unit.openvino_model import convert

MODEL = "stories-ov"


@pytest.fixture(scope="module")
def stories(
    server: Server,
    test_data: Path,
    require: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A client of a server that has pulled the converted model by the CLI."""
    require("openvino")
    folder = tmp_path_factory.mktemp("converted")
    convert(test_data / "models" / "stories260k", folder)
    pulled = server.cli("pull", str(folder), "--name", MODEL, "--json")
    assert pulled.returncode == 0, pulled.stderr
    with server.client() as client:
        yield client


def test_without_the_engine_the_install_is_named(server: Server, tmp_path: Path) -> None:
    if find_missing("openvino") is None:
        pytest.skip("OpenVINO GenAI is installed here")
    pulled = server.cli("pull", str(make_openvino(tmp_path)), "--name", "none")
    assert pulled.returncode != 0
    assert "pip install 'llmos[openvino]'" in pulled.stderr


def test_a_damaged_model_is_refused(server: Server, tmp_path: Path) -> None:
    weights = make_openvino(tmp_path) / "openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:20])
    pulled = server.cli("pull", str(tmp_path), "--name", "damaged")
    assert pulled.returncode != 0
    assert "ends at byte 32 of 20" in pulled.stderr


def test_the_golden_text_alone(stories: httpx.Client, golden: dict[str, Any]) -> None:
    check_alone(stories, MODEL, golden)


def test_what_is_shown_of_it(server: Server, stories: httpx.Client) -> None:
    shown = json.loads(server.cli("show", MODEL, "--json").stdout)
    assert (shown["driver"], shown["format"], shown["dtype"]) == ("openvino", "openvino", "float32")
    assert "is read by OpenVINO" in server.cli("show", MODEL).stdout


@pytest.mark.usefixtures("stories")
def test_the_golden_text_among_eight(server: Server, golden: dict[str, Any]) -> None:
    check_among(server, MODEL, golden, 7)


def test_what_it_cannot_do_is_refused(stories: httpx.Client) -> None:
    for fields in ({"logprobs": 2}, {"logit_bias": {"5": 1.0}}, {"frequency_penalty": 1.0}):
        answer = stories.post("/v1/completions", json=ask(MODEL, [1], 3, **fields))
        expected = 200 if "frequency_penalty" in fields else 400
        assert answer.status_code == expected, answer.text


def test_a_dead_worker_is_started_again(stories: httpx.Client, golden: dict[str, Any]) -> None:
    check_started_again(stories, MODEL, golden)
