"""The driver over engines that batch by themselves, with one whose every token is known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llmos.abi.driver import Capabilities, ReplicaSpec
from llmos.abi.events import Aborted, Failed, Finished, FinishReason, Tokens
from llmos.abi.inference import Sampling
from llmos.drivers.batcher.driver import BatcherDriver
from llmos.drivers.batcher.engine import Opened, Progress, Row
from llmos.drivers.resident import read_resident
from llmos.errors import EngineFailed, InvalidRequest, LoadFailed, ModelRejected
from llmos.weights import ModelFacts
from tests.unit.drivers.tiny import drive, finished, make_item, make_spec, text, token_ids
from tests.unit.model_folder import make_model as make_safetensors
from tests.unit.openvino_file import make_openvino


class Counting:
    """Says `burst` tokens of each row a pass: the number of those it was given, cut at the end."""

    def __init__(self) -> None:
        self.rows: dict[Row, int] = {}
        self.seeds: list[int] = []
        self.given: list[list[int]] = []
        self.burst = 1
        self.fails: str = ""
        self.is_closed = False

    def check(self, sampling: Sampling, num_new: int) -> None:
        if sampling.top_k == 13:
            raise InvalidRequest("not thirteen", param="top_k")

    def add(self, row: Row) -> None:
        self.rows[row] = row.num_left
        self.seeds.append(row.next_seed)
        self.given.append(row.known)

    def drop(self, row: Row) -> None:
        self.rows.pop(row, None)

    def has_work(self) -> bool:
        return bool(self.rows)

    def is_well(self) -> bool:
        return not self.is_closed

    def poll(self) -> None:
        if self.fails == "all":
            raise EngineFailed("it is dead")
        for row, left in list(self.rows.items()):
            said = min(left, self.burst)
            for _ in range(said):
                row.unsaid.append(len(row.known))
            self.rows[row] = left - said
            if self.fails == row.request_id:
                row.error = EngineFailed("no room")
            if self.rows[row] == 0 or row.error:
                del self.rows[row]

    def close(self) -> None:
        self.is_closed = True


class Loaded:
    def __init__(self, folder: Path, **fields: object) -> None:
        self.engine = Counting()
        can = Capabilities(driver="counting", kinds=["generate"], formats=["openvino"])
        self.driver = BatcherDriver(can, self.open)
        self.report = self.driver.load(make_spec(folder, **fields), lambda fraction, what: None)

    def open(self, spec: ReplicaSpec, facts: ModelFacts, progress: Progress) -> Opened:
        return Opened(
            engine=self.engine,
            dtype=facts.dtype,
            device="cpu",
            context_length=spec.context_length,
            num_slots=spec.num_slots,
            kv_token_bytes=10,
            kv_reserved_bytes=10 * spec.num_slots * spec.context_length,
            weights_bytes=facts.weights_bytes,
            resident=read_resident,
            room_bytes=1 << 20,
            about="counting",
        )


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    make_openvino(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 9]}')
    return Loaded(tmp_path, num_slots=2)


def test_one_token_a_step_however_many_have_come(loaded: Loaded) -> None:
    loaded.engine.burst = 50
    loaded.driver.submit(make_item("a", [72] * 20, max_tokens=4))
    for number in range(3):
        (event,) = loaded.driver.step()
        assert isinstance(event, Tokens)
        assert event.token_ids == [20 + number]
        assert loaded.driver.health().num_running == 1
        assert loaded.driver.wait_s() == 0.0
    *_, last = loaded.driver.step()
    assert isinstance(last, Finished)
    assert (last.reason, last.usage.completion_tokens) == (FinishReason.LENGTH, 4)
    assert loaded.driver.wait_s() is None


def test_a_paused_row_keeps_what_was_drawn(loaded: Loaded) -> None:
    loaded.engine.burst = 3
    loaded.driver.submit(make_item("a", [72] * 20, max_tokens=8, seed=100, temperature=1.0))
    said = loaded.driver.step()
    loaded.driver.pause("a")
    loaded.driver.pause("a")
    assert loaded.engine.rows == {}
    assert (loaded.driver.wait_s(), loaded.driver.step()) == (None, [])
    assert loaded.driver.health().num_paused == 1
    loaded.driver.unpause("a")
    events = said + drive(loaded.driver)["a"]
    assert token_ids(events) == [20, 21, 22, 23, 24, 25, 26, 27]
    assert loaded.engine.given == [[72] * 20, [72] * 20 + [20, 21, 22]]
    assert loaded.engine.seeds == [100, 103]


def test_what_the_engine_has_said_to_the_end_is_not_asked_again(loaded: Loaded) -> None:
    loaded.engine.burst = 5
    loaded.driver.submit(make_item("a", [72] * 20, max_tokens=5))
    said = loaded.driver.step()
    loaded.driver.pause("a")
    loaded.driver.unpause("a")
    events = said + drive(loaded.driver)["a"]
    assert token_ids(events) == [20, 21, 22, 23, 24]
    assert finished(events).reason == FinishReason.LENGTH
    assert len(loaded.engine.given) == 1


def test_ends_are_ours_to_see(loaded: Loaded) -> None:
    loaded.engine.burst = 6
    loaded.driver.submit(make_item("a", [72] * 7, max_tokens=50))  # says 7, 8, 9
    last = finished(drive(loaded.driver)["a"])
    assert (last.reason, last.usage.completion_tokens) == (FinishReason.STOP, 3)
    assert loaded.engine.rows == {}
    loaded.driver.submit(make_item("b", [72] * 7, max_tokens=6, ignore_eos=True))
    assert finished(drive(loaded.driver)["b"]).usage.completion_tokens == 6
    loaded.driver.submit(make_item("c", [72] * 30, max_tokens=50, stop_token_ids=[32]))
    last = finished(drive(loaded.driver)["c"])
    assert (last.stop, last.usage.completion_tokens) == (32, 3)


def test_text_and_stop_strings(loaded: Loaded) -> None:
    # tokens 3 and on are bytes: 71 stands for D, and so on
    loaded.driver.submit(make_item("a", [72] * 71, max_tokens=50, stop=["GH"]))
    events = drive(loaded.driver)["a"]
    assert text(events) == "DEF"
    assert finished(events).stop == "GH"


def test_neither_waits_for_the_other(loaded: Loaded) -> None:
    for name in "abc":
        loaded.driver.submit(make_item(name, [72] * 20, max_tokens=6))
    loaded.driver.step()
    assert [row.request_id for row in loaded.engine.rows] == ["a", "b"]
    assert loaded.driver.health().detail == "1 waiting"
    used = loaded.driver.memory()
    assert used.kv_used_bytes == 2 * 21 * 10
    loaded.driver.abort("a", "enough")
    loaded.driver.abort("a", "twice")
    first, *_ = loaded.driver.step()
    assert first == Aborted("a", "enough", first.usage)
    assert [row.request_id for row in loaded.engine.rows] == ["b", "c"]
    events = drive(loaded.driver)
    assert set(events) == {"b", "c"}
    assert loaded.driver.memory().kv_used_bytes == 0


def test_a_row_that_cannot_go_on(loaded: Loaded) -> None:
    loaded.engine.fails = "a"
    for name in "ab":
        loaded.driver.submit(make_item(name, [72] * 20, max_tokens=5))
    events = drive(loaded.driver)
    *said, last = events["a"]
    assert isinstance(last, Failed)
    assert last.error.message == "no room"
    assert last.usage.completion_tokens == len(token_ids(said)) == 1  # what came before is said
    assert finished(events["b"]).usage.completion_tokens == 5


def test_an_engine_that_is_dead_ends_the_worker(loaded: Loaded) -> None:
    loaded.engine.fails = "all"
    loaded.driver.submit(make_item("a", [72] * 20, max_tokens=5))
    with pytest.raises(EngineFailed, match="it is dead"):
        loaded.driver.step()
    loaded.driver.unload()
    assert loaded.engine.is_closed
    assert not loaded.driver.health().ok


def test_what_only_the_engine_refuses(loaded: Loaded) -> None:
    with pytest.raises(InvalidRequest, match="thirteen"):
        loaded.driver.submit(make_item("a", [72] * 20, max_tokens=5, top_k=13))
    assert loaded.driver.wait_s() is None


def test_a_recomputed_row_draws_on(loaded: Loaded) -> None:
    item = make_item("a", [72] * 20, max_tokens=5, seed=7, temperature=1.0)
    heard = msgspec.structs.replace(item, generated=b"\x14\0\0\0\x15\0\0\0")
    loaded.driver.submit(heard)
    assert token_ids(drive(loaded.driver)["a"]) == [22, 23, 24]
    assert loaded.engine.seeds == [9]


def test_seeds_that_nobody_gave_differ(loaded: Loaded) -> None:
    for name in "abcd":
        loaded.driver.submit(make_item(name, [72] * 20, max_tokens=1, temperature=1.0))
        drive(loaded.driver)
    assert len(set(loaded.engine.seeds)) == 4


def test_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(
        ModelRejected, match="safetensors files; the counting driver reads openvino"
    ):
        Loaded(make_safetensors(tmp_path))


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    make_openvino(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    with pytest.raises(LoadFailed, match=r"tokenizer\.json"):
        Loaded(tmp_path)
