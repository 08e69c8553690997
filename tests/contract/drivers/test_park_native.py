"""The native driver parked: what is given back, and that it comes back bit by bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from array import array
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.abi.driver import MemoryReport
from llmos.drivers.native import pages
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.native.fused.engine import Piece
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.drivers.native.kv import KVSlots, LayerShape
from llmos.drivers.resident import read_resident
from llmos.errors import LoadFailed
from tests.unit.drivers.tiny import drive, make_item, make_model, make_spec, token_ids

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are counted on Linux")

WIDE: dict[str, Any] = {"vocab_size": 3000, "hidden_size": 512, "intermediate_size": 2048}
"""12 million parameters: enough to be seen among a process's pages."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    make_model(folder, dtype="bfloat16", **WIDE)
    return folder


@pytest.fixture
def copy(wide: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wide, tmp_path / "copy"))


TORCH, FUSED = {"engine": "torch"}, {"engine": "fused"}
both = pytest.mark.parametrize("options", [FUSED, TORCH], ids=["fused", "torch"])


def replica(folder: Path, **fields: Any) -> NativeDriver:
    driver = NativeDriver()
    driver.load(make_spec(folder, **fields), lambda fraction, what: None)
    return driver


def answers(driver: NativeDriver) -> list[list[int]]:
    items = [
        make_item("greedy", [5, 6, 7], max_tokens=20, ignore_eos=True),
        make_item("drawn", [9], seed=3, temperature=4.0, max_tokens=20, ignore_eos=True),
    ]
    events = drive(driver, items)
    return [token_ids(events[name]) for name in ("greedy", "drawn")]


def weights_of(driver: NativeDriver) -> Any:
    """As `Accounts` has them."""
    runner = driver._model()
    return runner.loaded.weights if isinstance(runner, EagerRunner) else _fused(driver)._residence


def _fused(driver: NativeDriver) -> FusedRunner:
    runner = driver._model()
    assert isinstance(runner, FusedRunner)
    return runner


def model_of(driver: NativeDriver) -> Any:
    runner = driver._model()
    assert isinstance(runner, EagerRunner)
    return runner.loaded.model


def every_bit(driver: NativeDriver) -> dict[str, bytes]:
    """Of all weights; on kernels of ours, of the logits that they make."""
    runner = driver._model()
    if isinstance(runner, FusedRunner):
        table = array("i", range(4))
        piece = Piece(table, 0, [7 * i % 300 for i in range(40)], 4)
        return {"logits": runner.engine.forward([piece]).numpy().tobytes()}
    model = model_of(driver)
    named = [*model.named_parameters(), *model.named_buffers()]
    return {n: t.detach().contiguous().view(torch.uint8).numpy().tobytes() for n, t in named}


@both
def test_weights_of_the_files_type_are_pages_of_the_file(
    wide: Path, options: dict[str, str]
) -> None:
    driver = replica(wide, dtype="bfloat16", options=options)
    weights = weights_of(driver)
    size = (wide / "model.safetensors").stat().st_size
    assert size <= weights.mapped_bytes < size + (1 << 20)
    assert weights.own_bytes < 1 << 17
    assert weights.resident_bytes() > 0.9 * size
    driver.park()
    assert weights.resident_bytes() < 1 << 20
    driver.unpark()
    assert weights.resident_bytes() > 0.9 * size


def test_each_weight_is_counted_once(wide: Path, tmp_path: Path) -> None:
    """Mapped ones are no memory of our own; a tied head is the embedding."""
    driver = replica(wide, dtype="bfloat16")
    size = (wide / "model.safetensors").stat().st_size
    memory = driver.memory()
    assert size - (1 << 16) < memory.weights_bytes < size + (1 << 17)
    make_model(tmp_path, dtype="bfloat16", tie_word_embeddings=True, **WIDE)
    embedding = 2 * WIDE["vocab_size"] * WIDE["hidden_size"]
    tied = replica(tmp_path, dtype="bfloat16").memory()
    assert abs(memory.weights_bytes - tied.weights_bytes - embedding) < 1 << 16


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        (FUSED, "bfloat16"),
        (FUSED, "float32"),
        (FUSED, "int8"),
        (FUSED, "int4"),
        (TORCH, "bfloat16"),
        (TORCH, "float32"),
    ],
)
def test_all_comes_back(wide: Path, dtype: str, options: dict[str, str]) -> None:
    """Mapped weights, and cast ones: those torch reads anew, our kernels keep theirs."""
    driver = replica(wide, dtype=dtype, options=options)
    bits, expected = every_bit(driver), answers(driver)
    before = driver.memory()
    for _ in range(2):
        driver.park()
        back = driver.unpark()
        assert back.weights_bytes == before.weights_bytes
        assert every_bit(driver) == bits
        assert answers(driver) == expected


def report_parking(folder: Path, dtype: str, engine: str, told: Connection) -> None:
    """What a worker says of its memory: in use, then parked and unparked several times."""
    driver = replica(folder, dtype=dtype, options={"engine": engine})
    answers(driver)
    driver.park()  # once, so that what loading left is given back before
    driver.unpark()
    told.send(
        [driver.memory(), *(move() for _ in range(4) for move in (driver.park, driver.unpark))]
    )


@pytest.mark.parametrize(
    ("engine", "dtype"), [("fused", "bfloat16"), ("torch", "bfloat16"), ("torch", "float32")]
)
def test_the_pages_are_given_back(wide: Path, engine: str, dtype: str) -> None:
    """Of mapped weights, and of those that torch reads anew. In a process with nothing else in it,
    as a worker is: this one takes and frees what it likes meanwhile."""
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    worker = context.Process(target=report_parking, args=(wide, dtype, engine, told))
    worker.start()
    told.close()
    before, *moves = heard.recv()  # EOFError when it has failed
    worker.join()
    for parked, back in zip(moves[::2], moves[1::2], strict=True):
        assert parked.rss_bytes < before.rss_bytes - 0.95 * before.weights_bytes
        assert abs(back.bound_bytes - before.bound_bytes) < 1 << 20


def test_tied_heads_stay_tied(tmp_path: Path) -> None:
    make_model(tmp_path, tie_word_embeddings=True)
    driver = replica(tmp_path, dtype="bfloat16", options=TORCH)  # cast, so read anew
    expected = answers(driver)
    model = model_of(driver)
    for _ in range(2):
        driver.park()
        driver.unpark()
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert answers(driver) == expected


def test_a_page_that_was_written_to_is_kept(wide: Path) -> None:
    driver = replica(wide, dtype="bfloat16", options=TORCH)
    with torch.no_grad():
        model_of(driver).get_parameter("lm_head.weight")[5, 5] = 3.0
    bits = every_bit(driver)
    driver.park()
    driver.unpark()
    assert every_bit(driver) == bits


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def rewrite(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1 << 20)


def configure(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 5.0}))


@both
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("harm", [remove, rewrite, cut, configure])
def test_another_folder_is_not_the_model(
    copy: Path, harm: Callable[[Path], None], dtype: str, options: dict[str, str]
) -> None:
    driver = replica(copy, dtype=dtype, options=options)
    driver.park()
    harm(copy)
    with pytest.raises(LoadFailed, match=r"is gone|has changed|No such file"):
        driver.unpark()
    driver.unload()


@both
def test_links_may_come_and_go(copy: Path, tmp_path: Path, options: dict[str, str]) -> None:
    """A version's files are links to blobs that other versions may share."""
    driver = replica(copy, dtype="bfloat16", options=options)
    driver.park()
    other = tmp_path / "other"
    other.hardlink_to(copy / "model.safetensors")
    driver.unpark()
    driver.park()
    other.unlink()
    driver.unpark()


@both
def test_a_kernel_without_the_advice_touches(
    wide: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    driver = replica(wide, dtype="bfloat16", options=options)
    driver.park()
    monkeypatch.setattr(pages, "POPULATE_READ", 12345)
    driver.unpark()
    weights = weights_of(driver)
    assert weights.resident_bytes() > 0.9 * weights.mapped_bytes


def test_untouched_slots_cost_nothing() -> None:
    shapes = [LayerShape(4, 64, 64)] * 4
    device = torch.device("cpu")
    before = read_resident().anonymous_bytes
    kv = KVSlots(shapes, num_slots=16, length=4096, dtype=torch.float32, device=device)
    assert kv.allocated_bytes >= kv.reserved_bytes == 16 * 4096 * 8192
    assert read_resident().anonymous_bytes - before < 4 << 20
    tokens = torch.ones(4, 8, 64)
    for layer in range(4):
        kv.write_span(layer, 3, 0, tokens, tokens)
    grown = read_resident().anonymous_bytes - before
    assert kv.touched_bytes == 8 * 8192
    assert kv.touched_bytes <= grown < 4 << 20
    keys, values = kv.read(0, slice(0, 16), slice(0, 4096))
    assert (int(keys.count_nonzero()), int(values.sum())) == (4 * 8 * 64, 4 * 8 * 64)
    del keys, values
    kv.give_back()
    assert kv.reserved_bytes == kv.allocated_bytes == kv.touched_bytes == 0
    kv.take()
    assert not any(tensor.any() for tensor in kv.read_all(3, 4096))


@both
def test_a_copy_is_not_in_the_bound(tmp_path: Path, options: dict[str, str]) -> None:
    """KV of paused requests whose rows are taken: the kernel counts it apart."""
    make_model(tmp_path, num_attention_heads=8, num_key_value_heads=8, head_dim=256)
    driver = replica(tmp_path, num_slots=1, context_length=256, options=options)
    at_rest = driver.memory()
    for number in range(9):
        driver.submit(make_item(f"r{number}", [5] * 200, max_tokens=50, ignore_eos=True))
        for _ in range(8):
            driver.step()
        driver.pause(f"r{number}")
    held: MemoryReport = driver.memory()
    copies = held.kv_reserved_bytes - at_rest.kv_reserved_bytes
    assert copies > 8 * 200 * 32768
    assert held.bound_bytes - at_rest.bound_bytes < copies / 3
