"""vLLM in an environment of its own through the whole system, and what is said where it is not.

Its interpreter is named by `LLMOS_TEST_VLLM` (`make test-vllm` makes one); nothing of ours has to
be installed there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server
from tests.system.stories import ask, expected_ids
from tests.system.stories import complete as tell
from tests.system.test_faults import worker_of
from tests.unit.wide_heads import make_wide

PYTHON = os.environ.get("LLMOS_TEST_VLLM", "")
HEAD = 32
"""The smallest that vLLM computes with on a CPU; the model's own are of 8."""

needs_vllm = pytest.mark.skipif(not PYTHON, reason="LLMOS_TEST_VLLM names no interpreter with vLLM")


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"LLMOS_DRIVERS__VLLM_PYTHON": PYTHON}
    running = Server(tmp_path_factory.mktemp("vllm") / "home", env=env).start()
    try:
        yield running
        assert running.stop() == 0, running.log
    finally:
        running.kill()


@pytest.fixture(scope="module")
def stories(
    vllm_server: Server, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = make_wide(test_data / "models" / "stories260k", tmp_path_factory.mktemp("wide"), HEAD)
    pulled = vllm_server.cli("pull", str(folder), "--name", "wide", "--driver", "vllm")
    assert pulled.returncode == 0, pulled.stderr
    with vllm_server.client(timeout=1500) as client:
        yield client


def complete(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    return tell(client, ask("wide", **({"prompt": [1]} | fields)))


def test_without_it_the_setting_is_named(server: Server, test_data: Path) -> None:
    source = test_data / "models" / "stories260k"
    pulled = server.cli("pull", str(source), "--name", "s", "--driver", "vllm")
    assert pulled.returncode != 0
    assert "environment of its own" in pulled.stderr
    assert "LLMOS_DRIVERS__VLLM_PYTHON" in pulled.stderr


def test_an_interpreter_that_is_not_there(own_server: Server, test_data: Path) -> None:
    own_server._env["LLMOS_DRIVERS__VLLM_PYTHON"] = "/nowhere/bin/python"
    own_server.start()
    source = str(test_data / "models" / "stories260k")
    pulled = own_server.cli("pull", source, "--name", "s", "--driver", "vllm")
    assert pulled.returncode != 0
    assert "/nowhere/bin/python: no such program" in pulled.stderr
    assert own_server.cli("pull", source, "--name", "s").returncode == 0


@needs_vllm
@pytest.mark.timeout(1800)
def test_the_golden_text(stories: httpx.Client, golden: dict[str, Any]) -> None:
    expected = expected_ids(golden)
    (choice,) = complete(stories)["choices"]
    assert choice["token_ids"] == expected
    assert golden["text"].startswith(choice["text"])
    with ThreadPoolExecutor(4) as pool:
        beside = [
            pool.submit(complete, stories, prompt="Once upon a time", temperature=0.8, seed=n)
            for n in range(3)
        ]
        assert complete(stories)["choices"][0]["token_ids"] == expected
        assert all(one.result()["usage"]["completion_tokens"] for one in beside)


@needs_vllm
def test_why_it_serves_is_said(vllm_server: Server, stories: httpx.Client) -> None:
    shown = vllm_server.cli("show", "wide").stdout
    assert "is read by vLLM" in shown
    assert "it was asked for" in shown
    process_id = complete(stories, max_tokens=2)["id"].replace("cmpl-", "req_")
    told = vllm_server.cli("why", process_id)
    assert told.returncode == 0, told.stderr
    assert "read by vLLM" in told.stdout


@needs_vllm
@pytest.mark.timeout(1800)
def test_heads_it_has_no_kernel_for(vllm_server: Server, test_data: Path) -> None:
    source = str(test_data / "models" / "stories260k")
    assert vllm_server.cli("pull", source, "--name", "s", "--driver", "vllm").returncode == 0
    with vllm_server.client(timeout=1500) as client:
        answer = client.post("/v1/completions", json={"model": "s", "prompt": "a"})
    assert answer.status_code != 200
    assert "heads of 8; on a CPU vLLM computes with heads of 32" in answer.text


@needs_vllm
@pytest.mark.timeout(1800)
def test_nothing_of_a_dead_worker_stays(stories: httpx.Client, golden: dict[str, Any]) -> None:
    complete(stories, max_tokens=5)
    worker = worker_of(stories, "wide")
    family = descendants(worker)
    assert len(family) >= 2  # vLLM's engine, and what computes
    os.kill(worker, signal.SIGKILL)
    deadline_s = time.monotonic() + 60
    while alive := [pid for pid in family if is_alive(pid)]:
        assert time.monotonic() < deadline_s, alive
        time.sleep(0.05)
    answer = stories.post("/v1/completions", json={"model": "wide", "prompt": [1]})
    if answer.status_code != 200:  # it was on its way into the dead one
        assert answer.json()["error"]["code"] == "worker_lost"
    expected = expected_ids(golden)
    assert complete(stories)["choices"][0]["token_ids"] == expected


@needs_vllm
@pytest.mark.timeout(1800)
def test_an_engine_that_dies_is_started_again(
    stories: httpx.Client, golden: dict[str, Any]
) -> None:
    """vLLM's own process, with the worker still there: nobody waits for ever."""
    complete(stories, max_tokens=5)
    for pid in descendants(worker_of(stories, "wide")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    answer = stories.post("/v1/completions", json={"model": "wide", "prompt": [1]})
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] == "worker_lost"
    expected = expected_ids(golden)
    assert complete(stories)["choices"][0]["token_ids"] == expected


def descendants(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
