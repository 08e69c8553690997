"""Adapters through the real server: made, told of, asked, measured, and their base kept."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.contract.native.adapted import adapt
from tests.contract.train.data import TINY, sentences, sentiment
from tests.system.server import POLL_S, Server
from tests.system.test_faults import worker_of
from tests.system.test_jobs import QUICK
from tests.system.test_train import llmos
from tests.unit.drivers.tiny import make_model

# what libraries say to each other about their next releases, where adapters are made
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = Server(tmp_path_factory.mktemp("adapters") / "home", *QUICK).start()
    try:
        yield own
        assert own.stop() == 0, own.log
    finally:
        own.kill()


def test_virtual_tokens_make_a_classifier_of_a_base(server: Server, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text for text, _ in sentences(200)), "utf-8")
    sizes = [f"--set=model.{name}={value}" for name, value in (TINY | {"max_length": 64}).items()]
    data = (*("--train", str(corpus)), *("--set", "data.format=lines"))
    llmos(server, "train", "--name", "words", "-O", "masked", *data, *sizes, "--steps", "10")
    files = sentiment(tmp_path / "data", 200)
    options = [part for split, path in files.items() for part in (f"--{split}", str(path))]
    learning = ("--epochs", "2", "--lr", "1e-2", "--set=model.max_length=32")
    said = llmos(
        server,
        *("train", "--name", "mood", "-O", "classify", "-m", "words", "--method", "prompt"),
        *(*options, *learning),
    )
    assert "\nmood:1\n" in said, said
    listed = llmos(server, "ls")
    assert "prompt over words:1" in listed
    shown = llmos(server, "show", "mood")
    assert "prompt over words:1 (sha256:" in shown
    assert "virtual tokens before every text" in shown
    told = llmos(server, "task", "classify", "-m", "mood", "--text", "lovely film", "--json")
    assert '"pos"' in told or '"neg"' in told, told
    measured = llmos(
        server, *("eval", "run", "--kind", "classify", "-m", "mood", "--data", str(files["test"]))
    )
    assert "accuracy" in measured
    refused = llmos(server, "rm", "words:1", "--yes", fails=True)
    assert "words:1 is the base of mood:1" in refused
    refused = llmos(
        server,
        *("train", "--name", "again", "-O", "classify", "-m", "mood", "--method", "lora"),
        *(*options, *learning),
        fails=True,
    )
    assert "mood:1 is an adapter of words:1" in refused


def test_an_adapter_is_pulled_over_a_model_that_is_here_and_asked(
    server: Server, tmp_path: Path
) -> None:
    base = tmp_path / "tiny"
    make_model(base)
    adapt(base, "lora", tmp_path / "small")
    refused = llmos(server, "pull", str(tmp_path / "small"), fails=True)
    assert "no version here has those weights" in refused
    llmos(server, "pull", str(base))
    bare = tmp_path / "bare"
    (tmp_path / "small" / "adapter").rename(bare)
    (bare / "llmos.json").unlink()
    assert "lora over tiny:1" in llmos(server, "pull", str(bare), "--base", "tiny")
    body = {"model": "bare", "prompt": "the", "max_tokens": 4, "temperature": 0}
    with server.client() as client:
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 4
        rows = client.get("/os/v1/processes").json()["processes"]
    why = llmos(server, "why", rows[0]["process_id"])
    assert "tiny:1 with the lora adapter bare:1" in why
    llmos(server, "rm", "bare", "--yes", fails=True)  # it is loaded
    llmos(server, "unload", "bare")


def rooms(server: Server) -> set[str]:
    """Folders in scratch that hold weights."""
    return {p.name for p in (server.home / "scratch").iterdir() if any(p.rglob("*.safetensors"))}


def until_none_but(server: Server, others: set[str]) -> None:
    deadline = time.monotonic() + 30
    while found := rooms(server) - others:
        assert time.monotonic() < deadline, found
        time.sleep(POLL_S)


def test_a_merged_model_goes_with_its_worker(server: Server, tmp_path: Path) -> None:
    """Unloaded, killed, or never loaded."""
    base, folder = tmp_path / "plain", tmp_path / "fine"
    make_model(base)
    adapt(base, "lora", folder)
    shutil.copytree(folder, tmp_path / "nan")
    path = tmp_path / "nan" / "adapter" / "adapter_model.safetensors"
    save_file({n: torch.full_like(t, float("nan")) for n, t in load_file(path).items()}, path)
    for name in ("plain", "fine", "nan"):
        llmos(server, "pull", str(tmp_path / name))
    others = rooms(server)
    body = {"model": "fine", "prompt": "the", "max_tokens": 2}
    with server.client() as client:
        assert client.post("/v1/completions", json=body).status_code == 200
        assert len(rooms(server) - others) == 1
        llmos(server, "unload", "fine")
        until_none_but(server, others)
        assert client.post("/v1/completions", json=body).status_code == 200
        os.kill(worker_of(client, "fine"), signal.SIGKILL)
        until_none_but(server, others)
        answer = client.post("/v1/completions", json=body | {"model": "nan"})
        assert "is not finite" in answer.json()["error"]["message"], answer.text
        until_none_but(server, others)
