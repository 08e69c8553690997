"""How likely a prompt is: what Transformers' own forward says, however it was read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmos.abi.events import Event, Logprobs
from llmos.drivers.native.driver import NativeDriver
from llmos.errors import InvalidRequest
from tests.unit.drivers.tiny import drive, finished, make_item, random_prompt

Load = Callable[..., NativeDriver]


@pytest.fixture(params=["fused", "torch"])
def driver(request: pytest.FixtureRequest, load: Load, tiny: Path) -> NativeDriver:
    return load(tiny, options={"engine": request.param}, num_slots=8)


def told(events: list[Event]) -> list[Logprobs]:
    found = finished(events).prompt_logprobs
    assert found is not None
    return found


def expected(folder: Path, prompt: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def scored(name: str, prompt: list[int], **fields: Any) -> Any:
    return make_item(name, prompt, **{"max_tokens": 1, "temperature": 0.0} | fields)


@pytest.mark.parametrize("length", [1, 2, 15, 40])
def test_they_are_those_of_transformers(driver: NativeDriver, tiny: Path, length: int) -> None:
    prompt = random_prompt(length, length)
    found = told(drive(driver, [scored("a", prompt, prompt_logprobs=2)])["a"])
    assert [one.drawn.token_id for one in found] == prompt
    assert (found[0].drawn.logprob, found[0].top) == (0.0, [])
    rows = expected(tiny, prompt)
    for place, one in enumerate(found[1:]):
        assert one.drawn.logprob == pytest.approx(float(rows[place, prompt[place + 1]]), abs=1e-3)
        values, _ = rows[place].topk(2)
        assert [other.logprob for other in one.top] == pytest.approx(values.tolist(), abs=1e-3)


def test_many_at_once_beside_plain_ones_and_what_is_cached(driver: NativeDriver) -> None:
    """The same prompt was read before, and is read by others meanwhile: nothing is left out."""
    prompt = random_prompt(9, 30)
    alone = told(drive(driver, [scored("a", prompt, prompt_logprobs=0)])["a"])
    plain = drive(driver, [scored("p", prompt, max_tokens=3)])["p"]
    items = [scored(f"s{n}", prompt, prompt_logprobs=0) for n in range(3)]
    events = drive(driver, [*items, scored("q", prompt, max_tokens=3)])
    assert finished(events["q"]).prompt_logprobs is None
    for n in range(3):
        again = told(events[f"s{n}"])
        assert [one.drawn.logprob for one in again] == pytest.approx(
            [one.drawn.logprob for one in alone], abs=1e-4
        )
    assert [type(e) for e in plain] == [type(e) for e in events["q"]]


def test_the_answer_is_the_same_with_and_without(driver: NativeDriver) -> None:
    prompt = random_prompt(4, 20)
    plain = drive(driver, [scored("a", prompt, max_tokens=6, logprobs=0)])["a"]
    both = drive(driver, [scored("b", prompt, max_tokens=6, logprobs=0, prompt_logprobs=0)])["b"]
    ids = [[t for e in events for t in getattr(e, "token_ids", [])] for events in (plain, both)]
    assert ids[0] == ids[1]
    assert finished(both).usage.prompt_tokens == 20


def test_they_are_read_anew_after_a_suspension(driver: NativeDriver, tmp_path: Path) -> None:
    prompt = random_prompt(5, 40)
    alone = told(drive(driver, [scored("a", prompt, prompt_logprobs=0, max_tokens=4)])["a"])
    item = scored("b", prompt, prompt_logprobs=0, max_tokens=4)
    driver.submit(item)
    driver.step()
    driver.step()
    snapshot = driver.suspend("b", str(tmp_path))
    driver.resume(item, snapshot)
    events: list[Event] = []
    while driver.wait_s() == 0.0:
        events += driver.step()
    again = told(events)
    assert [one.drawn.logprob for one in again] == pytest.approx(
        [one.drawn.logprob for one in alone], abs=1e-4
    )


def test_too_many_likeliest_ones_are_refused(driver: NativeDriver) -> None:
    with pytest.raises(InvalidRequest, match="prompt_logprobs"):
        driver.submit(scored("a", [1, 2], prompt_logprobs=21))
