"""The torch runner on a device that is not the host's: nothing mixed, nothing waited for.

With a stand-in device: neither CUDA nor MPS is at hand where tests run.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.abi.inference import Sampling
from llmos.drivers.native import attention, sampling, transfer
from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.load import LoadedModel, load_model
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.native.transfer import to_device
from tests.unit.drivers.elsewhere import DEVICE, Device, Elsewhere, move, stops
from tests.unit.drivers.tiny import make_model, random_prompt


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("windows")
    make_model(folder, "mistral", sliding_window=20)
    return load_model(folder, dtype="auto", device="cpu", context_length=96)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    for name in ("prefill", "decode"):  # tensors that wrap others know no inference mode
        bare = getattr(Batch, name).__wrapped__
        monkeypatch.setattr(Batch, name, torch.no_grad()(bare))
    with Device() as made:
        yield made


def elsewhere(loaded: LoadedModel) -> LoadedModel:
    return dataclasses.replace(loaded, model=move(copy.deepcopy(loaded.model)), device=DEVICE)


def held(tensor: torch.Tensor) -> torch.Tensor:
    assert isinstance(tensor, Elsewhere)
    return tensor.held


def test_the_stand_in_is_as_strict_as_a_device(device: Device) -> None:
    there = Elsewhere(torch.ones(3))
    for wrong in (
        lambda: there + torch.ones(3),
        lambda: torch.ones(3) * there,
        there.double,
        lambda: torch.zeros(3, dtype=torch.float64, device=DEVICE),
        there.nonzero,
    ):
        with pytest.raises(AssertionError, match=r"of the host|float64|stops the host"):
            wrong()
    with stops(device) as counted:
        assert (there + 1).tolist() == [2.0] * 3
        torch.tensor([1], device=DEVICE)
        torch.ones(2).to(DEVICE)
        torch.ones(2).to(DEVICE, non_blocking=True)
    assert counted == [3]


def test_steps_are_those_of_the_host_and_none_stops_it(loaded: LoadedModel, device: Device) -> None:
    here, there = Batch(loaded, 4), Batch(elsewhere(loaded), 4)
    prompts = {slot: random_prompt(slot, 70 if slot == 2 else 9) for slot in (0, 2, 3)}
    with stops(device) as counted:
        for slot, prompt in prompts.items():
            for start in range(0, len(prompt), 64):
                chunk = prompt[start : start + 64]
                expected = here.prefill(slot, start, chunk)
                assert torch.equal(held(there.prefill(slot, start, chunk)), expected)
        for mode in DecodeMode:
            for slots in ([0, 2, 3], [2, 3], [0]):
                tokens, positions = [5] * len(slots), [len(prompts[slot]) for slot in slots]
                expected = here.decode(slots, tokens, positions, mode)
                assert torch.equal(held(there.decode(slots, tokens, positions, mode)), expected)
    assert counted == [0]


def test_a_copy_of_keys_and_values_is_in_host_memory(loaded: LoadedModel, device: Device) -> None:
    there = Batch(elsewhere(loaded), 2)
    prompt = random_prompt(1, 20)
    there.prefill(0, 0, prompt)
    parked = there.kv.park(0, 20)
    assert not any(isinstance(tensor, Elsewhere) for tensor in parked.tensors())
    there.kv.clear(0, 20)
    there.kv.restore(1, parked)
    found = there.decode([1], [7], [20], DecodeMode.PACKED)
    here = Batch(loaded, 2)
    here.prefill(1, 0, prompt)
    expected = here.decode([1], [7], [20], DecodeMode.PACKED)
    assert torch.equal(held(found), expected)


def rows_of(*params: dict[str, Any]) -> list[tuple[RowSampler, int]]:
    return [
        (RowSampler(Sampling(**({"seed": n} | of)), [1, 2, 3, 3], generated=[4, 4, 5]), n)
        for n, of in enumerate(params)
    ]


ROWS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.0, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 1.0, "frequency_penalty": 1.0, "presence_penalty": 0.5},
    {"temperature": 0.0, "repetition_penalty": 1.4},
    {"temperature": 1.0, "top_k": 1},
]


@pytest.mark.parametrize("seed", range(4))
def test_draws_are_those_of_the_host_and_stop_it_once(device: Device, seed: int) -> None:
    logits = torch.randn(len(ROWS), 300, generator=torch.Generator().manual_seed(seed)) * 3
    logits[1, 7] = float("nan")
    expected = sampling.sample(logits, rows_of(*ROWS))
    with stops(device) as counted:
        found = sampling.sample(Elsewhere(logits.clone()), rows_of(*ROWS))
    assert found == expected
    assert found[1] is None
    assert counted == [1]


@pytest.mark.parametrize("params", ROWS[1:5])
def test_one_row_draws_as_it_does_among_others(
    device: Device, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]
) -> None:
    """CUDA sums a single row by another algorithm than several."""
    sizes: list[int] = []
    cumsum = torch.Tensor.cumsum

    def noted(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        if tensor.is_floating_point():
            sizes.append(tensor.shape[0])
        return cumsum(tensor, dim=dim)

    monkeypatch.setattr(torch.Tensor, "cumsum", noted)
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(1))
    (found,) = sampling.sample(Elsewhere(logits), rows_of(params))
    assert set(sizes) == {2}
    assert [found] == sampling.sample(logits.repeat(1, 1), rows_of(params))


def test_nucleus_and_top_k_of_many_rows_at_once() -> None:
    """The form for devices against the one for the host, ties included."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randint(-3, 4, (400, 60), generator=generator).float()
    probs = logits.softmax(-1)
    uniform = torch.rand(400, generator=generator)
    params = [
        Sampling(top_k=n % 7, top_p=(0.3, 0.95, 1.0)[n % 3] if n % 7 else 0.7) for n in range(400)
    ]
    found = sampling._draw_truncated_rows(probs, params, uniform)
    expected = [int(sampling._draw_truncated(probs[n], params[n], uniform[n])) for n in range(400)]
    assert sum(a != b for a, b in zip(found.tolist(), expected, strict=True)) <= 2  # rounding


def test_one_copy_for_all_numbers_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """To CUDA from pinned memory, without waiting: with a stand-in for both."""
    asked: list[dict[str, Any]] = []
    make = torch.tensor

    class Host:
        def __init__(self, numbers: list[int]) -> None:
            self.numbers = numbers

        def to(self, to: torch.device, **how: Any) -> torch.Tensor:
            asked.append({"to": to, **how})
            return make(self.numbers)

    def tensor(numbers: list[int], **how: Any) -> Host:
        asked.append(how)
        return Host(numbers)

    monkeypatch.setattr(transfer.torch, "tensor", tensor)
    cuda = torch.device("cuda:1")
    slots, empty, tokens = to_device(cuda, [1, 2, 3], [], [7] * 5)
    assert asked == [
        {"dtype": torch.long, "device": "cpu", "pin_memory": True},
        {"to": cuda, "non_blocking": True},
    ]
    assert (slots.tolist(), empty.tolist(), tokens.tolist()) == ([1, 2, 3], [], [7] * 5)
    assert tokens.storage_offset() % 4 == 0
    to_device(torch.device("mps"), [1])
    assert asked[2]["pin_memory"] is False


def test_the_host_waits_for_a_device_and_not_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    transfer.wait_for(torch.device("cpu"))
    transfer.wait_for(torch.device("mps"))
    assert waited == [torch.device("mps")]


def test_later_chunks_without_a_mask_see_what_they_see_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where a mask would keep FlashAttention away."""
    make_model(tmp_path)
    loaded = load_model(tmp_path, dtype="auto", device="cpu", context_length=200)
    prompt = random_prompt(3, 150)

    def read() -> torch.Tensor:
        batch = Batch(loaded, 1)
        return torch.cat([batch.prefill(0, at, prompt[at : at + 64]) for at in (0, 64, 128)])

    expected = read()
    masks: list[int] = []
    causal_mask = attention.causal_mask
    monkeypatch.setattr(
        attention, "causal_mask", lambda *args: masks.append(1) or causal_mask(*args)
    )
    assert torch.equal(read(), expected) and masks
    masks.clear()
    monkeypatch.setattr(attention, "_WITHOUT_MASKS", {"cpu"})
    assert (read() - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not masks
