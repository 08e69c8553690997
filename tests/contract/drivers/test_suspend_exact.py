"""A request suspended anywhere goes on with the bits of one that never was (native driver).

Requests of all kinds run at once on two replicas; at random steps one is taken out, left out for a
while or not, and put into either replica, beside whoever is there, into whatever row is free. Its
events must be those of a run of its own, and every row of logits that it drew from must be equal
bit by bit.
"""

from __future__ import annotations

import dataclasses
import random
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import llmos.pilot
from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Event, Finished, Tokens
from llmos.abi.inference import WorkItem
from llmos.drivers.native import eager
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused import runner as fused
from llmos.drivers.native.limits import NativeLimits
from llmos.drivers.native.request import Request
from llmos.drivers.text.detokenize import ByteState, WindowState
from llmos.errors import LLMOSError, SnapshotRejected
from tests.unit.drivers.bits import Bits, record_bits, rows_of
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    make_model,
    make_spec,
    metaspace_tokenizer,
    text,
    token_ids,
)

NUM_REQUESTS = 12
NUM_SLOTS = 3
CONTEXT = 256
MIN_POINTS = 150
"""Of one model: four of them are 600."""

KINDS = [
    "beside others",
    "paused",
    "not paused",
    "parked",
    "not begun",
    "in the prompt",
    "in a character",
    "with withheld text",
    "with penalties",
    "drawn by chance",
]
"""Every one of these is suspended at least once."""

TORCH, FUSED = {"engine": "torch"}, {"engine": "fused"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bits(monkeypatch: pytest.MonkeyPatch) -> Bits:
    return record_bits(monkeypatch)


@pytest.fixture(params=["stories260k", "pilot", "random", "windows"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real weights, the bundled model, random ones, and random ones with sliding windows whose
    tokenizer has no byte rule."""
    name: str = request.param
    if name == "stories260k":
        data: Path = request.getfixturevalue("test_data")
        return data / "models" / name
    if name == "pilot":
        return Path(llmos.pilot.__path__[0])
    made = tmp_path_factory.mktemp(name)
    if name == "random":
        make_model(made, dtype="bfloat16")
        return made
    tokenizer = metaspace_tokenizer()
    make_model(made, "mistral", sliding_window=40, vocab_size=tokenizer.get_vocab_size())
    tokenizer.save(str(made / "tokenizer.json"))
    return made


def replica(folder: Path, own: Path, **fields: Any) -> NativeDriver:
    driver = NativeDriver()
    given = {
        "num_slots": NUM_SLOTS,
        "context_length": CONTEXT,
        "scratch": str(own),
        "deterministic": True,
    }
    driver.load(make_spec(folder, **(given | fields)), lambda fraction, what: None)
    return driver


def random_item(
    rng: random.Random, number: int, vocab_size: int, stops: list[list[str]]
) -> WorkItem:
    """Any kind of request, of a seed of its own, with up to three chunks of prompt."""
    params: dict[str, Any] = {"temperature": rng.choice([0.0, 0.7, 1.0, 8.0])}
    for name, values in {
        "top_p": [0.5, 0.95],
        "top_k": [5, 40],
        "min_p": [0.05],
        "frequency_penalty": [0.4, 1.0],
        "presence_penalty": [0.5],
        "repetition_penalty": [1.3],
        "stop": stops,
        "stop_token_ids": [rng.sample(range(3, vocab_size), 2)],
    }.items():
        if rng.random() < 0.3:
            params[name] = rng.choice(values)
    prompt = [rng.randrange(3, vocab_size) for _ in range(rng.choice([1, 20, 64, 65, 140, 170]))]
    return make_item(
        f"r{number}",
        prompt,
        seed=10_000 + number,
        max_tokens=rng.choice([5, 20, 40]),
        ignore_eos=True,
        **params,
    )


def kinds_of(request: Request, beside: int) -> Iterator[str]:
    """What is special about this point."""
    yield from ["beside others"] if beside else []
    yield "paused" if request.paused else "not paused"
    if request.parked is not None:
        yield "parked"
    if request.num_cached == 0:
        yield "not begun"
    elif request.prefilling:
        yield "in the prompt"
    if request.stops.withheld:
        yield "with withheld text"
    state = None if request.detokenizer is None else request.detokenizer.state()
    if isinstance(state, ByteState) and state.pending:
        yield "in a character"
    if isinstance(state, WindowState) and state.num_done < len(state.window):
        yield "in a character"
    if request.generated:
        yield from ["with penalties"] if request.sampler.penalized else []
        yield from [] if request.sampler.greedy else ["drawn by chance"]


@dataclasses.dataclass
class World:
    """Two replicas and the requests on them, moved about at random."""

    drivers: list[NativeDriver]
    items: dict[str, WorkItem]
    rng: random.Random
    said: dict[str, list[Event]] = dataclasses.field(default_factory=dict)
    out: dict[str, SnapshotRef] = dataclasses.field(default_factory=dict)
    points: Counter[str] = dataclasses.field(default_factory=Counter)

    def run(self) -> None:
        for item in self.items.values():
            self.rng.choice(self.drivers).submit(item)
        for number in range(20_000):
            if not self.out and all(d.wait_s() is None and not len(d._seats) for d in self.drivers):
                return
            self._move(calm=number > 10_000)
            for driver in self.drivers:
                for event in driver.step():
                    self.said.setdefault(event.request_id, []).append(event)
        raise AssertionError("it never ends")

    def _move(self, calm: bool) -> None:
        rng = self.rng
        for driver in self.drivers:
            for request in list(driver._seats):
                if rng.random() < 0.2 and not calm:
                    (driver.unpause if request.paused else driver.pause)(request.request_id)
                elif rng.random() < 0.5 and not calm:
                    self._suspend(driver, request)
                elif calm:
                    driver.unpause(request.request_id)
        for request_id in list(self.out):
            if calm or rng.random() < 0.5:
                driver = rng.choice(self.drivers)
                driver.resume(self.items[request_id], self.out.pop(request_id))

    def _suspend(self, driver: NativeDriver, request: Request) -> None:
        kinds = list(kinds_of(request, len(driver._seats.running()) - 1))
        self.out[request.request_id] = driver.suspend(request.request_id)
        self.points.update(["all", *kinds])


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request said, however its tokens were spread over events, and how it ended.

    Not what of its prompt was cached: that is the driver's own history.
    """

    token_ids: list[int]
    text: str
    end: Finished


def answers(said: dict[str, list[Event]]) -> dict[str, Answer]:
    found = {}
    for request_id, events in said.items():
        end = finished(events)
        usage = msgspec.structs.replace(end.usage, cached_tokens=0)
        end = msgspec.structs.replace(end, usage=usage)
        found[request_id] = Answer(token_ids(events), text(events), end)
    return found


def rows_by_request(
    bits: Bits, items: list[WorkItem], said: dict[str, Answer]
) -> list[torch.Tensor]:
    return [
        rows_of(bits, item.sampling.seed or 0, len(said[item.request_id].token_ids))
        for item in items
    ]


@pytest.mark.parametrize("options", [FUSED, TORCH], ids=["fused", "torch"])
def test_moved_about_at_random(
    folder: Path,
    tmp_path: Path,
    bits: Bits,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    # a chunk a step, so that prompts take several
    limits = NativeLimits(
        prefill_s_per_step=0.0, urgent_prefill_s_per_step=0.0, step_tokens=50, least_prefill=41
    )
    monkeypatch.setattr(eager, "LIMITS", limits)
    monkeypatch.setattr(fused, "LIMITS", limits)
    drivers = [replica(folder, tmp_path / str(i), options=options) for i in range(2)]
    loaded = drivers[0]._model().info
    rng = random.Random(4)
    likely = drive(drivers[0], [make_item("w", [5], max_tokens=60, ignore_eos=True)])["w"]
    # one that may come true, and some that always begin and never do
    endless = [f"{char}\N{SNOWMAN}" for char in string.printable + "\N{REPLACEMENT CHARACTER}"]
    stops = [[text(likely)[3:6] or "zzz"], endless, endless]
    wanted = set(KINDS)
    if folder.name.startswith("windows"):  # every token is a character
        wanted.remove("in a character")
    points: Counter[str] = Counter()
    for _ in range(40):
        if points["all"] >= MIN_POINTS and points.keys() >= wanted:
            break
        items = [random_item(rng, n, loaded.vocab_size, stops) for n in range(NUM_REQUESTS)]
        bits.clear()
        expected = answers({i.request_id: drive(drivers[0], [i])[i.request_id] for i in items})
        rows = rows_by_request(bits, items, expected)
        bits.clear()
        world = World(drivers, {item.request_id: item for item in items}, rng)
        world.run()
        assert answers(world.said) == expected
        assert all(answer.end.deterministic for answer in expected.values())
        assert all(map(torch.equal, rows_by_request(bits, items, expected), rows))
        points += world.points
    print(folder.name, dict(points))  # pytest -s
    assert points["all"] >= MIN_POINTS
    assert wanted - points.keys() == set()


def test_without_the_promise_state_is_exact(tmp_path: Path, bits: Bits) -> None:
    """Packed steps: alone on its replica, a request's bits stay; beside others its tokens, seed,
    place and text do, and the answer says that it was not deterministic."""
    make_model(tmp_path)
    fields = {"deterministic": False, "options": TORCH}
    a, b = (replica(tmp_path, tmp_path / n, **fields) for n in ("1", "2"))
    item = make_item(
        "t", [5, 6, 7], seed=1, temperature=1.0, max_tokens=60, ignore_eos=True, stop=["zzz"]
    )
    expected = drive(a, [item])["t"]
    rows = dict(bits)
    a.submit(item)
    said: list[Event] = []
    while not said or not isinstance(said[-1], Finished):
        said += a.step()
        if a._seats.find("t"):
            seat = a._seats.find("t")
            assert seat is not None
            before = seat.generated, seat.sampler.seed, seat.num_cached, seat.stops.withheld
            b.resume(item, a.suspend("t"))
            seat = b._seats.find("t")
            assert seat is not None
            assert before == (
                seat.generated,
                seat.sampler.seed,
                seat.num_cached,
                seat.stops.withheld,
            )
            a, b = b, a
    assert said == expected
    assert finished(said).deterministic is False
    assert all(torch.equal(bits[key], rows[key]) for key in rows)
    assert len(rows) == len(token_ids(said)) == 60


@pytest.mark.parametrize("options", [FUSED, TORCH], ids=["fused", "torch"])
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"num_slots": 17}, "width"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"context_length": 70}, "context"),
    ],
)
def test_other_grounds_are_refused(
    tmp_path: Path, fields: dict[str, Any], name: str, options: dict[str, Any]
) -> None:
    make_model(tmp_path)
    a = replica(tmp_path, tmp_path, options=options)
    b = replica(tmp_path, tmp_path, options=options, **fields)
    item = make_item("t", [5] * 60, max_tokens=20, ignore_eos=True)
    expected = drive(a, [item])["t"]
    a.submit(item)
    said = a.step()
    ref = a.suspend("t")
    if name == "width" and options is FUSED:  # no step is wider than its rows
        b.resume(item, ref)
        assert token_ids(said + drive(b)["t"]) == token_ids(expected)
        return
    with pytest.raises(LLMOSError, match=name) as caught:
        b.resume(item, ref)
    assert caught.value.code in {"snapshot_rejected", "context_length_exceeded"}
    assert (b.wait_s(), b.memory().kv_used_bytes) == (None, 0)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("options", [(FUSED, TORCH), (TORCH, FUSED)], ids=["to torch", "to fused"])
def test_the_other_engine_is_refused(
    tmp_path: Path, options: tuple[dict[str, Any], dict[str, Any]], deterministic: bool
) -> None:
    """It lays KV out in another way, also where both take as many bytes."""
    make_model(tmp_path, head_dim=16)
    a, b = (replica(tmp_path, tmp_path, options=engine) for engine in options)
    item = make_item("t", [5] * 16, max_tokens=20, ignore_eos=True, deterministic=deterministic)
    a.submit(item)
    a.step()
    assert a._model().kv_bytes(16) == b._model().kv_bytes(16)
    ref = a.suspend("t")
    with pytest.raises(SnapshotRejected, match="engine"):
        b.resume(item, ref)
    assert (b.wait_s(), b.memory().kv_used_bytes) == (None, 0)
    a.resume(item, ref)
    assert len(token_ids(drive(a)["t"])) == 19


def test_what_was_cached_is_told_after_it_too(tmp_path: Path) -> None:
    make_model(tmp_path)
    a, b = (replica(tmp_path, tmp_path) for _ in range(2))
    item = make_item("t", [5] * 40, max_tokens=20, ignore_eos=True)
    assert finished(drive(a, [item])["t"]).usage.cached_tokens == 0
    a.submit(item)
    said = a.step()
    b.resume(item, a.suspend("t"))
    said += b.step()
    b.resume(item, b.suspend("t"))
    assert finished(said + drive(b)["t"]).usage.cached_tokens == 32
    a.submit(item)
    a.step()
    a.suspend("t")
    a.abort("t", "no more")
    (end,) = a.step()
    assert not isinstance(end, Tokens)
    assert end.usage.cached_tokens == 32


def test_a_width_does_not_matter_without_the_promise(tmp_path: Path) -> None:
    make_model(tmp_path)
    a = replica(tmp_path, tmp_path, options=TORCH)
    b = replica(tmp_path, tmp_path, num_slots=17, options=TORCH)
    item = make_item("t", [5], max_tokens=20, ignore_eos=True, deterministic=False)
    a.submit(item)
    said = a.step()
    b.resume(item, a.suspend("t"))
    said += drive(b)["t"]
    assert len(token_ids(said)) == 20
    assert finished(said).deterministic is False
