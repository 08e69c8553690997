"""The native driver: golden text, usage, ends, refusals."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from llmos.abi.events import Failed, Finished, FinishReason, Tokens
from llmos.abi.inference import Grammar, Usage
from llmos.drivers.native import sampling
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.errors import (
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    UnsupportedParameter,
)
from tests.unit.drivers.tiny import (
    VOCAB_SIZE,
    byte_fallback_tokenizer,
    drive,
    finished,
    make_item,
    random_prompt,
    text,
    token_ids,
)

Load = Callable[..., NativeDriver]


@pytest.fixture(params=["fused", "torch"])
def engine(request: pytest.FixtureRequest) -> str:
    """Of the drivers that `load` of this file gives."""
    return str(request.param)


@pytest.fixture
def load(load: Load, engine: str) -> Load:
    def loaded(folder: Path, **fields: Any) -> NativeDriver:
        driver = load(folder, options={"engine": engine}, **fields)
        assert driver._model().info.engine == engine
        return driver

    return loaded


def counts(usage: Usage) -> tuple[int, int]:
    """Without what was in a cache: drivers are used by one test after another."""
    return usage.prompt_tokens, usage.completion_tokens


@pytest.mark.parametrize("num_before", [1, 60, 63, 64, 150])
def test_recomputed_golden_text(test_data: Path, load: Load, engine: str, num_before: int) -> None:
    """What was drawn before is read with the prompt, and what follows is as if never broken off."""
    folder = test_data / "models" / "stories260k"
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    expected = golden["ids_after_bos_numpy_reference"][:199]
    driver = load(folder, context_length=256, num_slots=16)
    item = make_item("golden", [1], max_tokens=199, stop=["no such text"])
    before = array("i", expected[:num_before]).tobytes()
    events = drive(driver, [msgspec.structs.replace(item, generated=before)])["golden"]
    assert token_ids(events) == expected[num_before:]
    assert golden["text"].endswith(text(events) + " she")
    end = finished(events)
    assert (counts(end.usage), end.deterministic) == ((1, 199), engine == "fused")


def test_recomputing_knows_what_was_said(tiny: Path, load: Load) -> None:
    """Penalties, the place in the random numbers, stop strings and ends go on where they were."""
    driver = load(tiny)
    params: dict[str, Any] = {
        "temperature": 1.0,
        "seed": 5,
        "frequency_penalty": 2.0,
        "repetition_penalty": 1.5,
        "max_tokens": 40,
        "ignore_eos": True,
    }
    item = make_item("a", random_prompt(1, 5), **params)
    whole = drive(driver, [item])["a"]
    ids, said = token_ids(whole), text(whole)
    for num_before in (3, 20):
        before = array("i", ids[:num_before]).tobytes()
        events = drive(driver, [msgspec.structs.replace(item, generated=before)])["a"]
        assert token_ids(events) == ids[num_before:]
        assert said.endswith(text(events))
    # a stop string that begins in what was said before
    first = text(whole[:20])
    stop = said[len(first) - 1 : len(first) + 1]
    if first and said.index(stop) == len(first) - 1:
        stopping = make_item("a", random_prompt(1, 5), **(params | {"stop": [stop]}))
        before = array("i", ids[:20]).tobytes()
        events = drive(driver, [msgspec.structs.replace(stopping, generated=before)])["a"]
        assert text(events) == ""
        assert finished(events).stop == stop


def test_an_answer_that_had_ended_cannot_go_on(tiny: Path, load: Load) -> None:
    driver = load(tiny)
    item = make_item("a", [5], max_tokens=9, stop_token_ids=[7])
    over = msgspec.structs.replace(item, generated=array("i", [8, 7, 9]).tobytes())
    with pytest.raises(InvalidRequest, match="ended after 2 of 3"):
        driver.submit(over)
    done = msgspec.structs.replace(item, generated=array("i", [8, 7]).tobytes())
    (end,) = drive(driver, [done])["a"]
    assert isinstance(end, Finished)
    assert (end.reason, end.stop, end.usage) == (FinishReason.STOP, 7, Usage(1, 2))


@pytest.mark.parametrize("neighbours", [0, 15])
def test_golden_text(test_data: Path, load: Load, neighbours: int) -> None:
    folder = test_data / "models" / "stories260k"
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    expected = golden["ids_after_bos_numpy_reference"]
    driver = load(folder, context_length=256, num_slots=16)
    others = [
        make_item(
            f"other{i}", [1, *range(260 + i, 265 + 2 * i)], temperature=1.0, max_tokens=9 * i + 5
        )
        for i in range(neighbours)
    ]
    items = [*others[:7], make_item("golden", [1], max_tokens=199), *others[7:]]
    events = drive(driver, items)
    assert token_ids(events["golden"]) == expected[:199]
    assert golden["text"].startswith(text(events["golden"]))
    assert len(golden["text"]) - len(text(events["golden"])) == len(" she")
    end = finished(events["golden"])
    assert (end.reason, end.usage) == (FinishReason.LENGTH, Usage(1, 199))
    assert end.deterministic is True
    assert len(events) == neighbours + 1


def test_usage_counts_every_token(tiny: Path, load: Load) -> None:
    driver = load(tiny)
    prompt = random_prompt(1, 100)
    events = drive(driver, [make_item("a", prompt, max_tokens=7, ignore_eos=True)])
    assert counts(finished(events["a"]).usage) == (100, 7)
    assert len(token_ids(events["a"])) == 7


def test_unbounded_goes_to_the_end_of_the_context(tiny: Path, load: Load) -> None:
    events = drive(
        load(tiny, context_length=80), [make_item("a", random_prompt(1, 70), ignore_eos=True)]
    )
    end = finished(events["a"])
    assert (end.reason, end.usage) == (FinishReason.LENGTH, Usage(70, 10))


@pytest.mark.parametrize(
    ("length", "max_tokens"), [(128, 0), (128, 1), (100, 29), (1, 128), (200, 0)]
)
def test_over_the_context(tiny: Path, load: Load, length: int, max_tokens: int) -> None:
    driver = load(tiny)
    with pytest.raises(ContextLengthExceeded):
        driver.submit(make_item("a", random_prompt(1, length), max_tokens=max_tokens))
    assert driver.wait_s() is None
    assert driver.health().num_running == 0


def generated(driver: NativeDriver, **sampling: Any) -> list[int]:
    return token_ids(drive(driver, [make_item("a", random_prompt(1, 5), **sampling)])["a"])


def test_end_tokens(tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = load(tiny)
    ids = generated(driver, max_tokens=8, ignore_eos=True)
    cut = ids.index(ids[3]) + 1
    stopped = drive(
        driver, [make_item("b", random_prompt(1, 5), stop_token_ids=[ids[3]], ignore_eos=True)]
    )["b"]
    assert token_ids(stopped) == ids[:cut]
    assert (finished(stopped).reason, finished(stopped).stop) == (FinishReason.STOP, ids[3])
    assert finished(stopped).usage.completion_tokens == cut
    model = driver._model()
    ending = dataclasses.replace(model.info, eos_ids=frozenset([ids[3]]))
    monkeypatch.setattr(model, "info", ending)
    ended = drive(driver, [make_item("c", random_prompt(1, 5))])["c"]
    assert token_ids(ended) == ids[:cut]
    assert (finished(ended).reason, finished(ended).stop) == (FinishReason.STOP, None)
    assert generated(driver, max_tokens=8, ignore_eos=True) == ids


def test_stop_strings(tiny: Path, load: Load) -> None:
    driver = load(tiny)
    whole = drive(driver, [make_item("a", random_prompt(1, 5), max_tokens=40, ignore_eos=True)])[
        "a"
    ]
    said = text(whole)
    stop = said[len(said) // 2 :][:2]
    events = drive(
        driver, [make_item("b", random_prompt(1, 5), max_tokens=40, ignore_eos=True, stop=[stop])]
    )["b"]
    assert text(events) == said[: said.index(stop)]
    assert (finished(events).reason, finished(events).stop) == (FinishReason.STOP, stop)
    assert finished(events).usage.completion_tokens == len(token_ids(events)) <= 40


def poison_second_row(driver: NativeDriver, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Once two requests are decoded, the keys and the logits of the second are NaN."""
    runner, nan = driver._model(), float("nan")
    poisoned: list[str] = []
    if isinstance(runner, EagerRunner):
        batch, decode = runner.batch, runner.batch.decode

        @torch.inference_mode()
        def poison(slots: list[int], *args: Any) -> torch.Tensor:
            logits = decode(slots, *args).clone()
            if len(slots) == 2 and not poisoned:
                poisoned.append("b")
                batch.kv._keys_SHLD[0][slots[1]].fill_(nan)
                logits[1] = nan
            return logits

        monkeypatch.setattr(batch, "decode", poison)
    else:
        assert isinstance(runner, FusedRunner)
        engine, forward = runner.engine, runner.engine.forward

        def poison_pages(pieces: Any) -> torch.Tensor:
            if len(pieces) == 2 and all(len(p.tokens) == 1 for p in pieces) and not poisoned:
                poisoned.append("b")
                for page in pieces[1].table:
                    engine._arena.tensors[0][page].view(torch.float32).fill_(nan)
            return forward(pieces)

        monkeypatch.setattr(engine, "forward", poison_pages)
    return poisoned


def test_what_is_not_finite_fails_its_own_request(
    tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(tiny, num_slots=2)
    prompts = {name: random_prompt(ord(name), 20) for name in "abc"}
    items = [make_item(n, p, max_tokens=30, ignore_eos=True) for n, p in prompts.items()]
    expected = {i.request_id: token_ids(drive(driver, [i])[i.request_id]) for i in items}
    with monkeypatch.context() as patch:
        poisoned = poison_second_row(driver, patch)
        events = drive(driver, items)
        assert poisoned
    assert isinstance(events["b"][-1], Failed)
    assert events["b"][-1].error.code == "engine_failed"
    for name in "ac":
        assert token_ids(events[name]) == expected[name]
        finished(events[name])
    # nothing of it is met again: neither in a slot nor in a page
    again = drive(driver, items)
    assert {name: token_ids(said) for name, said in again.items()} == expected


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), MemoryError(), torch.OutOfMemoryError("no")]
)
def test_engine_errors_are_events(
    tiny: Path, load: Load, engine: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    driver = load(tiny)
    expected = generated(driver, max_tokens=5, ignore_eos=True)
    runner = driver._model()

    def broken(*args: Any, **named: Any) -> torch.Tensor:
        raise error

    broken_parts: list[tuple[Any, str]] = []
    if isinstance(runner, EagerRunner):
        broken_parts = [(runner.batch, "prefill"), (runner.batch, "decode"), (sampling, "sample")]
    if isinstance(runner, FusedRunner):
        broken_parts = [(runner.engine, "forward"), (runner.engine, "draw")]
    for owner, name in broken_parts:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            (event, *_) = reversed(drive(driver, [make_item("a", [5])])["a"])
            assert isinstance(event, Failed)
            assert event.error.code == "engine_failed"
            assert ("out of memory" in event.error.message) == (type(error) is not RuntimeError)
    assert generated(driver, max_tokens=5, ignore_eos=True) == expected


@pytest.mark.parametrize("engine", ["torch"])
def test_no_memory_to_set_a_request_aside_is_an_engine_error(
    tiny: Path, load: Load, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(tiny)
    runner = driver._model()
    assert isinstance(runner, EagerRunner)
    driver.submit(make_item("a", [5], max_tokens=50, ignore_eos=True))
    driver.step()
    (request,) = driver._seats.running()

    def broken(*args: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(runner.batch.kv, "park", broken)
        with pytest.raises(EngineFailed, match="out of memory"):
            runner.set_aside(request)
    driver.abort("a", "enough")


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"kind": "embed"}, UnsupportedParameter, "kind"),
        ({"adapter": "x"}, UnsupportedParameter, "adapter"),
        ({"grammar": Grammar("x", "")}, InvalidRequest, "grammar"),
        ({"options": {"tokens": 3}}, UnsupportedParameter, "llmos.driver"),
        ({"temperature": float("nan")}, InvalidRequest, "temperature"),
        ({"top_p": 0.0}, InvalidRequest, "top_p"),
    ],
)
def test_refused_items(
    tiny: Path, load: Load, fields: dict[str, Any], error: type[LLMOSError], param: str
) -> None:
    driver = load(tiny)
    with pytest.raises(error) as caught:
        driver.submit(make_item("a", [5], **fields))
    assert caught.value.param == param
    assert driver.wait_s() is None


@pytest.mark.parametrize("prompt", [[], [-1], [VOCAB_SIZE], [5, 2**31 - 1]])
def test_refused_prompts(tiny: Path, load: Load, prompt: list[int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(tiny).submit(make_item("a", prompt))
    assert caught.value.param == "prompt"


def test_one_message_per_step(tiny: Path, load: Load) -> None:
    driver = load(tiny)
    for name in "abc":
        driver.submit(make_item(name, [5], max_tokens=3, ignore_eos=True))
    for _ in range(2):
        events = driver.step()
        assert [event.request_id for event in events] == ["a", "b", "c"]
        assert all(isinstance(event, Tokens) and len(event.token_ids) == 1 for event in events)


def test_a_seed_is_a_seed(tiny: Path, load: Load) -> None:
    driver = load(tiny)
    params = {"temperature": 1.2, "top_p": 0.95, "seed": 11, "max_tokens": 12, "ignore_eos": True}
    alone = generated(driver, **params)
    others = [
        make_item(f"o{i}", random_prompt(i, 9), temperature=1.0, max_tokens=20) for i in range(3)
    ]
    among = drive(driver, [*others, make_item("a", random_prompt(1, 5), **params)])
    assert token_ids(among["a"]) == alone
    assert generated(driver, **(params | {"seed": 12})) != alone


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
def test_penalties_count_what_was_drawn(tiny: Path, load: Load, penalty: str) -> None:
    """Greedy decoding of a random model soon repeats itself; a large penalty does not let it."""
    params = {"max_tokens": 40, "ignore_eos": True}
    assert len(set(generated(load(tiny), **params))) < 40
    assert len(set(generated(load(tiny), **params, **{penalty: 1e3}))) == 40


def test_text_is_the_decoding_in_context(tiny: Path, load: Load) -> None:
    tokenizer = byte_fallback_tokenizer()
    prompt = tokenizer.encode("the").ids
    events = drive(
        load(tiny),
        [make_item("a", prompt, max_tokens=40, temperature=1.0, seed=3, ignore_eos=True)],
    )["a"]
    pieces = b"".join(
        bytes([i - 3])
        if 3 <= i < 259
        else (tokenizer.id_to_token(i) or "").replace("▁", " ").encode()
        for i in token_ids(events)
        if i > 2
    )
    assert pieces.decode(errors="replace").startswith(text(events))


def test_memory_is_measured(tiny: Path, load: Load, engine: str) -> None:
    driver = load(tiny)
    before = driver.memory()
    assert before.rss_bytes > 10_000_000
    assert before.kv_used_bytes == 0
    size = 16 if engine == "fused" else 8  # heads are whole vectors there
    assert before.kv_reserved_bytes == 4 * 128 * 2 * 2 * 2 * size * 4
    driver.submit(make_item("a", random_prompt(1, 50), ignore_eos=True))
    driver.step()
    num_tokens = 64 if engine == "fused" else 50  # and tokens are whole pages
    assert driver.memory().kv_used_bytes == num_tokens * 2 * 2 * 2 * size * 4
    assert before.weights_bytes > 0


def test_tokens_are_little_endian_int32(tiny: Path, load: Load) -> None:
    assert make_item("a", [258]).tokens == b"\x02\x01\x00\x00" == array("i", [258]).tobytes()
    with pytest.raises(InvalidRequest):
        load(tiny).submit(
            make_item("a", [5]).__class__("a", b"\x05\x00\x00", make_item("a", [5]).sampling)
        )
