"""A name of the catalogue on the real server: pulled when it is run, whatever cuts the download."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import llmos
from tests.system.server import POLL_S, Server
from tests.unit.registry.hub_server import Hub, serve

PILOT = Path(llmos.__file__).parent / "pilot"
NAME, REPO, WEIGHTS = "qwen3-0.6b", "Qwen/Qwen3-0.6B", "model.safetensors"
PIECE_BYTES = 10 << 20
"""What the hub's client writes at once."""

LOAD_TIMEOUT_S = 240.0
"""A worker that loads an engine takes its time where others are at work."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A small model with the words of the pilot in the place of a large one."""
    fields = json.loads((PILOT / "config.json").read_text("utf-8"))
    fields |= {"num_hidden_layers": 10, "tie_word_embeddings": False, "dtype": "float32"}
    torch.manual_seed(7)
    folder = tmp_path / "qwen"
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PILOT / name, folder)
    with serve() as made:
        made.add(REPO, folder)
        assert len(made.repos[REPO][WEIGHTS]) > PIECE_BYTES + (1 << 20)
        yield made
        made.release.set()


def _ranges(hub: Hub) -> list[str | None]:
    return [h.get("Range") for m, p, h in hub.requests if m == "GET" and p.endswith(WEIGHTS)]


@pytest.mark.timeout(600)
def test_run_pulls_what_it_names_and_a_killed_pull_goes_on(own_server: Server, hub: Hub) -> None:
    own_server.options = ("--set", f"registry.hub_endpoint={hub.url}")
    own_server.start()
    hub.faults.hang.add(WEIGHTS)
    hub.faults.hang_after = PIECE_BYTES + 1000
    cut = threading.Thread(target=own_server.cli, args=("pull", NAME))
    cut.start()
    assert hub.hanging.wait(60)
    pause = threading.Event()
    parts = own_server.home / "pulls"
    while sum(p.stat().st_size for p in parts.rglob("*") if p.is_file()) < PIECE_BYTES:
        pause.wait(POLL_S)
    own_server.kill()
    cut.join()
    hub.faults.hang.clear()
    hub.requests.clear()

    own_server.start()
    done = own_server.cli("run", NAME, "hello", "--max-tokens", "4", timeout_s=LOAD_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    asked = [start for start in _ranges(hub) if start is not None]
    assert asked
    assert all(int(start.removeprefix("bytes=")[:-1]) >= PIECE_BYTES for start in asked)
    assert f"{NAME}:1" in own_server.cli("ls").stdout

    hub.requests.clear()
    assert (
        own_server.cli(
            "run", NAME, "hello", "--max-tokens", "4", timeout_s=LOAD_TIMEOUT_S
        ).returncode
        == 0
    )
    assert not hub.requests, "what is here is not asked for again"
