"""A request's bits do not depend on its neighbours, nor on the row it sits in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from tests.unit.drivers.bits import Bits, record_bits, rows_of
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    make_model,
    random_prompt,
    token_ids,
)

Load = Callable[..., NativeDriver]
TORCH: dict[str, Any] = {"options": {"engine": "torch"}}
FUSED: dict[str, Any] = {"options": {"engine": "fused"}}
both = pytest.mark.parametrize("engine", [TORCH, FUSED], ids=["torch", "fused"])


@pytest.fixture
def bits(monkeypatch: pytest.MonkeyPatch) -> Bits:
    return record_bits(monkeypatch)


def runner(driver: NativeDriver) -> EagerRunner:
    assert isinstance(driver._runner, EagerRunner)
    return driver._runner


def check_equal(bits: Bits, count: int) -> None:
    """Both runs of the request, by seed 1 and 2."""
    assert torch.equal(rows_of(bits, 1, count), rows_of(bits, 2, count))


def crowd(driver: NativeDriver, target: Any, seed: int) -> list[int]:
    """Run a request among up to 15 others that join, pause and leave at random. Its tokens."""
    rng = random.Random(seed)
    names: list[str] = []

    def join() -> None:
        names.append(f"{seed}-{len(names)}")
        prompt = random_prompt(rng.randrange(10**6), rng.randrange(1, 100))
        driver.submit(
            make_item(
                names[-1],
                prompt,
                temperature=rng.choice([0.0, 1.0]),
                seed=10**6 + len(names),
                max_tokens=rng.randrange(1, 20),
                deterministic=rng.choice([None, False]),
            )
        )

    for _ in range(rng.randrange(3, 15)):
        join()
    driver.step()
    driver.submit(target)

    def each(number: int) -> None:
        if number > 40:
            return
        if len(names) < 60 and rng.random() < 0.5:
            join()
        action = rng.choice([driver.pause, driver.unpause, lambda n: driver.abort(n, "test")])
        if rng.random() < 0.4:
            action(rng.choice(names))
        if number == 40:
            for name in names:
                driver.unpause(name)

    events = drive(driver, each=each)[target.request_id]
    end = finished(events)
    assert end.deterministic is True
    return token_ids(events)


@both
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["llama", "mistral"])
def test_bits_alone_and_among_others(
    tmp_path: Path, load: Load, bits: Bits, model_type: str, dtype: str, engine: dict[str, Any]
) -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 172, "head_dim": 12, "sliding_window": 40}
    make_model(tmp_path, model_type, dtype=dtype, **sizes)
    fields = {"num_slots": 16, "context_length": 256, "dtype": dtype, "deterministic": True}
    driver = load(tmp_path, **(fields | engine))
    if engine is TORCH:
        assert runner(driver).exact_mode is DecodeMode.FIXED
    params = {"max_tokens": 32, "ignore_eos": True}
    prompt = random_prompt(5, 110)
    alone = token_ids(drive(driver, [make_item("t", prompt, seed=1, **params)])["t"])
    assert crowd(driver, make_item("t", prompt, seed=2, **params), 2) == alone
    assert len(alone) == 32
    check_equal(bits, 32)


@both
def test_lengths_of_neighbours_cross_the_grid(
    tiny: Path, load: Load, bits: Bits, engine: dict[str, Any]
) -> None:
    """A row that attends over 32 keys beside rows that attend over 128 and 256."""
    driver = load(tiny, num_slots=3, context_length=256, deterministic=True, **engine)
    item = make_item("t", random_prompt(1, 10), seed=1, max_tokens=30, ignore_eos=True)
    drive(driver, [item])
    longer = [
        make_item(f"o{i}", random_prompt(i, 110 + i), max_tokens=60, ignore_eos=True)
        for i in range(2)
    ]
    drive(driver, [*longer, make_item("t", random_prompt(1, 10), seed=2, **_same())])
    check_equal(bits, 30)


def _same() -> dict[str, Any]:
    return {"max_tokens": 30, "ignore_eos": True}


@both
def test_parking_keeps_the_bits(tiny: Path, load: Load, bits: Bits, engine: dict[str, Any]) -> None:
    """A request paused and moved to another slot goes on with the same bits."""
    driver = load(tiny, num_slots=2, deterministic=True, **engine)
    drive(driver, [make_item("t", random_prompt(1, 10), seed=1, **_same())])
    driver.submit(make_item("t", random_prompt(1, 10), seed=2, **_same()))
    for _ in range(5):
        driver.step()
    driver.pause("t")
    others = [make_item(f"o{i}", [9], max_tokens=90, ignore_eos=True) for i in range(2)]
    for other in others:
        driver.submit(other)
    driver.step()
    driver.abort("o1", "make room in the other slot")
    driver.unpause("t")
    drive(driver)
    check_equal(bits, 30)


def test_where_rows_differ_requests_run_singly(
    tiny: Path, load: Load, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batch, "rows_are_alike", lambda self: False)
    driver = load(tiny, fresh=True, num_slots=16, deterministic=True, **TORCH)
    assert runner(driver).exact_mode is DecodeMode.SINGLE
    drive(driver, [make_item("t", random_prompt(1, 10), seed=1, **_same())])
    others = [make_item(f"o{i}", [9 + i], max_tokens=30, ignore_eos=True) for i in range(4)]
    drive(driver, [*others, make_item("t", random_prompt(1, 10), seed=2, **_same())])
    check_equal(bits, 30)


def test_a_mixture_of_experts_runs_singly(tmp_path: Path, load: Load) -> None:
    make_model(tmp_path, "mixtral", num_local_experts=4, num_experts_per_tok=2)
    driver = load(tmp_path, deterministic=True)
    assert runner(driver).exact_mode is DecodeMode.SINGLE
    assert "MixtralForCausalLM" in runner(driver).info.why  # the fused engine has none of these


def test_unequal_rows_are_noticed(tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = runner(load(tiny, num_slots=16, **TORCH)).batch
    assert batch.rows_are_alike()
    forward = batch._forward

    @torch.inference_mode()
    def uneven(*args: Any) -> torch.Tensor:
        logits = forward(*args).clone()
        logits[-1, ..., 3] = torch.nextafter(logits[-1, ..., 3], torch.tensor(1e9))
        return logits

    monkeypatch.setattr(batch, "_forward", uneven)
    assert not batch.rows_are_alike()


@pytest.mark.parametrize(("spec", "item", "mode"), [
    (True, None, True),
    (False, None, False),
    (False, True, True),
    (True, False, False),
])  # fmt: skip
def test_who_decides(tiny: Path, load: Load, spec: bool, item: bool | None, mode: bool) -> None:
    """Kernels of ours have no cheaper steps: there every answer is exact, asked for or not."""
    asked = make_item("a", [5], deterministic=item, max_tokens=3, ignore_eos=True)
    events = drive(load(tiny, deterministic=spec, **TORCH), [asked])
    assert finished(events["a"]).deterministic is mode
    events = drive(load(tiny, deterministic=spec, **FUSED), [asked])
    assert finished(events["a"]).deterministic is True


def test_packed_and_fixed_agree_closely(tiny: Path, load: Load, bits: Bits) -> None:
    driver = load(tiny, **TORCH)
    for seed, exact in ((1, True), (2, False)):
        drive(
            driver,
            [make_item("t", random_prompt(1, 10), seed=seed, deterministic=exact, **_same())],
        )
    a, b = rows_of(bits, 1, 30), rows_of(bits, 2, 30)
    assert ((a - b).abs().amax(-1) <= 1e-4 * a.abs().amax(-1)).all()


def test_the_engines_agree_closely(tiny: Path, load: Load, bits: Bits) -> None:
    for seed, engine in ((1, TORCH), (2, FUSED)):
        item = make_item("t", random_prompt(1, 90), seed=seed, **_same())
        drive(load(tiny, **engine), [item])
    a, b = rows_of(bits, 1, 30), rows_of(bits, 2, 30)
    assert ((a - b).abs().amax(-1) <= 1e-4 * a.abs().amax(-1)).all()
