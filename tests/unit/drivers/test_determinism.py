"""A request's bits do not depend on its neighbours, nor on the row it sits in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.native import driver as driver_module
from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.driver import NativeDriver
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    make_model,
    random_prompt,
    token_ids,
)

Load = Callable[..., NativeDriver]
Bits = dict[str, list[torch.Tensor]]


@pytest.fixture
def bits(monkeypatch: pytest.MonkeyPatch) -> Bits:
    """Every row of logits that was sampled from, by the seed of its request."""
    seen: Bits = {}
    sample = driver_module.sampling.sample

    def recording(logits: torch.Tensor, rows: list[Any]) -> Any:
        for row, (sampler, _) in enumerate(rows):
            seen.setdefault(str(sampler.seed), []).append(logits[row].clone())
        return sample(logits, rows)

    monkeypatch.setattr(driver_module.sampling, "sample", recording)
    return seen


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["llama", "mistral"])
def test_bits_alone_and_among_others(
    tmp_path: Path, load: Load, bits: Bits, model_type: str, dtype: str
) -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 172, "head_dim": 12, "sliding_window": 40}
    make_model(tmp_path, model_type, dtype=dtype, **sizes)
    driver = load(tmp_path, num_slots=16, context_length=256, dtype=dtype, deterministic=True)
    assert driver._exact_mode is DecodeMode.FIXED
    params = {"max_tokens": 32, "ignore_eos": True}
    prompt = random_prompt(5, 110)
    alone = token_ids(drive(driver, [make_item("t", prompt, seed=1, **params)])["t"])
    assert crowd(driver, make_item("t", prompt, seed=2, **params), 2) == alone
    assert len(bits["1"]) == 32
    assert all(torch.equal(a, b) for a, b in zip(bits["1"], bits["2"], strict=True))


def test_lengths_of_neighbours_cross_the_grid(tiny: Path, load: Load, bits: Bits) -> None:
    """A row that attends over 32 keys beside rows that attend over 128 and 256."""
    driver = load(tiny, num_slots=3, context_length=256, deterministic=True)
    item = make_item("t", random_prompt(1, 10), seed=1, max_tokens=30, ignore_eos=True)
    drive(driver, [item])
    longer = [
        make_item(f"o{i}", random_prompt(i, 110 + i), max_tokens=60, ignore_eos=True)
        for i in range(2)
    ]
    drive(driver, [*longer, make_item("t", random_prompt(1, 10), seed=2, **_same())])
    assert all(torch.equal(a, b) for a, b in zip(bits["1"], bits["2"], strict=True))


def _same() -> dict[str, Any]:
    return {"max_tokens": 30, "ignore_eos": True}


def test_parking_keeps_the_bits(tiny: Path, load: Load, bits: Bits) -> None:
    """A request paused and moved to another slot goes on with the same bits."""
    driver = load(tiny, num_slots=2, deterministic=True)
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
    assert all(torch.equal(a, b) for a, b in zip(bits["1"], bits["2"], strict=True))


def test_where_rows_differ_requests_run_singly(
    tiny: Path, load: Load, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batch, "rows_are_alike", lambda self: False)
    driver = load(tiny, fresh=True, num_slots=16, deterministic=True)
    assert driver._exact_mode is DecodeMode.SINGLE
    drive(driver, [make_item("t", random_prompt(1, 10), seed=1, **_same())])
    others = [make_item(f"o{i}", [9 + i], max_tokens=30, ignore_eos=True) for i in range(4)]
    drive(driver, [*others, make_item("t", random_prompt(1, 10), seed=2, **_same())])
    assert all(torch.equal(a, b) for a, b in zip(bits["1"], bits["2"], strict=True))


def test_a_mixture_of_experts_runs_singly(tmp_path: Path, load: Load) -> None:
    make_model(tmp_path, "mixtral", num_local_experts=4, num_experts_per_tok=2)
    assert load(tmp_path, deterministic=True)._exact_mode is DecodeMode.SINGLE


def test_unequal_rows_are_noticed(tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = load(tiny, num_slots=16)
    assert driver._batch.rows_are_alike()
    forward = driver._batch._forward

    @torch.inference_mode()
    def uneven(*args: Any) -> torch.Tensor:
        logits = forward(*args).clone()
        logits[-1, 3] = torch.nextafter(logits[-1, 3], torch.tensor(1e9))
        return logits

    monkeypatch.setattr(driver._batch, "_forward", uneven)
    assert not driver._batch.rows_are_alike()


@pytest.mark.parametrize(("spec", "item", "mode"), [
    (True, None, True),
    (False, None, False),
    (False, True, True),
    (True, False, False),
])  # fmt: skip
def test_who_decides(tiny: Path, load: Load, spec: bool, item: bool | None, mode: bool) -> None:
    driver = load(tiny, deterministic=spec)
    events = drive(driver, [make_item("a", [5], deterministic=item, max_tokens=3, ignore_eos=True)])
    assert finished(events["a"]).deterministic is mode


def test_packed_and_fixed_agree_closely(tiny: Path, load: Load, bits: Bits) -> None:
    driver = load(tiny)
    for seed, exact in ((1, True), (2, False)):
        drive(
            driver,
            [make_item("t", random_prompt(1, 10), seed=seed, deterministic=exact, **_same())],
        )
    for a, b in zip(bits["1"], bits["2"], strict=True):
        assert (a - b).abs().max() <= 1e-4 * a.abs().max()
