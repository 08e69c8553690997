"""The native driver with steps that torch compiles: the one test with that compiler at work."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._inductor.codecache import PyCodeCache

from tests.contract.fused.test_compiled import (
    WAIT_S,
    compiled_of,
    count_runs,
    items,
    open_driver,
)
from tests.unit.drivers.tiny import drive, finished, make_model, token_ids


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.deep  # inductor compiles for a quarter of a minute
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of inductor itself
def test_a_replica_serves_at_once_and_compiled_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scratch, cache = (tmp_path / name for name in ("model", "scratch", "cache"))
    make_model(model, num_hidden_layers=1)
    driver = open_driver(model, scratch=str(scratch), cache=str(cache), num_slots=1)
    assert driver.health().detail == ""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the tests before
    bound = driver.memory().bound_bytes
    eager = {name: token_ids(e) for name, e in drive(driver, items(2)).items()}
    found = compiled_of(driver)
    assert driver.health().detail in ("compiling 1 of 1", "compiled for 1 rows")
    assert found.wait(WAIT_S)
    assert driver.health().detail == "compiled for 1 rows"
    assert list((cache / "torch").rglob("*.so"))
    assert not scratch.exists()
    frozen = [n for m in PyCodeCache.modules for n in vars(m) if n.startswith("_frozen_param")]
    assert frozen, "the weights are no constants of what was compiled"
    assert driver.memory().peak_bytes <= bound  # known at load
    widths = count_runs(monkeypatch)
    again = drive(driver, items(2))
    assert {name: token_ids(e) for name, e in again.items()} == eager
    assert widths == [1] * 2 * 19  # all but first tokens
    forward = found._ready[1]
    assert forward._num_eager == 0
    assert not any(finished(e).deterministic for e in again.values())

    gone = [weakref.ref(forward), weakref.ref(forward._compile)]
    del forward, found
    driver.park()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert driver.health().detail == ""
    driver.unpark()
    assert compiled_of(driver).progress() == ""
    driver.unload()
