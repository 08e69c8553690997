"""The GGUF driver's own: the golden text, exact state, its vocabulary, and files that are not well.

Needs llama.cpp; without it each of these is skipped, naming the extra.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Event, Failed, Finished
from llmos.abi.inference import ChatPrompt, Grammar, PrepareItem, TextPrompt, WorkItem
from llmos.drivers.gguf.driver import GGUFDriver
from llmos.drivers.gguf.library import library
from llmos.drivers.gguf.prepare import make
from llmos.errors import InvalidRequest, LoadFailed, ModelRejected, PluginError, UserError
from llmos.weights import inspect
from llmos.weights.ggml import BLOCKS
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    make_spec,
    random_prompt,
    text,
    token_ids,
)
from tests.unit.gguf_file import STRING, gguf_bytes, make_gguf, tensors_of, values_of

NUM_TOKENS = 200


@pytest.fixture(autouse=True)
def _engine(require: Callable[[str], None]) -> None:
    require("gguf")


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Any]:
    text = (test_data / "models" / "stories260k" / "golden.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def stories(test_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "stories"
    folder.mkdir()
    shutil.copy(test_data / "models" / "stories260k.gguf", folder)
    return folder


Load = Callable[..., GGUFDriver]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    made: list[GGUFDriver] = []

    def one(folder: Path, **fields: Any) -> GGUFDriver:
        driver = GGUFDriver()
        spec = make_spec(folder, **({"scratch": str(tmp_path / "scratch")} | fields))
        driver.load(spec, lambda fraction, what: None)
        made.append(driver)
        return driver

    yield one
    for driver in made:
        driver.unload()


def story(name: str, **fields: Any) -> WorkItem:
    """The golden request."""
    return make_item(name, [1], max_tokens=NUM_TOKENS, ignore_eos=True, **fields)


def test_the_golden_text_alone(load: Load, stories: Path, golden: dict[str, Any]) -> None:
    driver = load(stories, context_length=512)
    events = drive(driver, [story("a")])["a"]
    assert token_ids(events) == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    assert text(events).startswith(golden["text"])
    assert finished(events).usage.completion_tokens == NUM_TOKENS


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_golden_text_in_a_batch_of_eight(
    load: Load, stories: Path, golden: dict[str, Any], deterministic: bool
) -> None:
    """Beside prompts of other lengths, sampled and greedy, more than there are rows."""
    driver = load(stories, context_length=512, num_slots=8, deterministic=deterministic)
    rng = random.Random(3)
    others = [
        make_item(
            f"o{n}",
            [rng.randrange(3, 512) for _ in range(rng.choice([1, 30, 200, 290]))],
            max_tokens=20 + 11 * n,
            temperature=rng.choice([0.0, 1.0]),
            seed=n,
            ignore_eos=True,
        )
        for n in range(11)
    ]
    events = drive(driver, [*others[:5], story("a"), *others[5:], story("b")])
    for name in "ab":
        expected = golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
        assert token_ids(events[name]) == expected
        assert finished(events[name]).deterministic is deterministic


def test_it_says_what_the_native_driver_says(load: Load, stories: Path, test_data: Path) -> None:
    from llmos.drivers.native.driver import NativeDriver

    items = [
        make_item(f"r{n}", random_prompt(n, 3 + 9 * n), max_tokens=30, ignore_eos=True)
        for n in range(6)
    ]
    ours = drive(load(stories, context_length=256), items)
    native = NativeDriver()
    native.load(make_spec(test_data / "models" / "stories260k"), lambda fraction, what: None)
    theirs = drive(native, items)
    native.unload()
    assert {r: text(e) for r, e in ours.items()} == {r: text(e) for r, e in theirs.items()}


@dataclasses.dataclass
class World:
    """Two replicas and the requests on them, moved about at random."""

    drivers: list[GGUFDriver]
    items: dict[str, WorkItem]
    rng: random.Random
    said: dict[str, list[Event]] = dataclasses.field(default_factory=dict)
    out: dict[str, SnapshotRef] = dataclasses.field(default_factory=dict)
    num_points: int = 0

    def run(self) -> None:
        for item in self.items.values():
            self.rng.choice(self.drivers).submit(item)
        for _ in range(20_000):
            if not self.out and not any(len(d._seats) or d._outbox for d in self.drivers):
                return
            for driver in self.drivers:
                self._move(driver)
            for driver in self.drivers:
                for event in driver.step():
                    self.said.setdefault(event.request_id, []).append(event)
        raise AssertionError("it never ends")

    def _move(self, driver: GGUFDriver) -> None:
        for request in list(driver._seats):
            chance = self.rng.random()
            if chance < 0.05 or request.paused:
                (driver.unpause if request.paused else driver.pause)(request.request_id)
            elif chance < 0.15:
                self.out[request.request_id] = driver.suspend(request.request_id)
                self.num_points += 1
        for request_id in list(self.out):
            if self.rng.random() < 0.5:
                item = self.items[request_id]
                self.rng.choice(self.drivers).resume(item, self.out.pop(request_id))


@pytest.fixture
def bits(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], bytes]:
    """The logits that were drawn from last, by seed of the request and index of the token."""
    from llmos.drivers.sampling.rows import RowSampler

    seen: dict[tuple[int, int], bytes] = {}
    draw = RowSampler.draw

    def recording(self: RowSampler, logits: Any, index: int) -> int | None:
        seen[self.seed, index] = logits.tobytes()
        return draw(self, logits, index)

    monkeypatch.setattr(RowSampler, "draw", recording)
    return seen


def test_moved_about_at_random_bits_stay(
    load: Load, stories: Path, golden: dict[str, Any], bits: dict[tuple[int, int], bytes]
) -> None:
    """Deterministic requests: every row of logits is the one of a run that was never suspended."""
    fields = {"context_length": 512, "num_slots": 3, "deterministic": True}
    drivers = [load(stories, **fields), load(stories, **fields)]
    rng = random.Random(6)
    items = [story("golden", seed=1)]
    items += [
        make_item(
            f"r{n}",
            [rng.randrange(3, 512) for _ in range(rng.choice([1, 40, 64, 65, 170]))],
            max_tokens=60,
            ignore_eos=True,
            seed=100 + n,
            temperature=rng.choice([0.0, 1.0, 8.0]),
            frequency_penalty=rng.choice([0.0, 1.0]),
            top_k=rng.choice([0, 40]),
            stop=rng.choice([[], ["☃", "e☃"]]),
        )
        for n in range(8)
    ]
    expected = {i.request_id: drive(drivers[0], [i])[i.request_id] for i in items}
    rows = dict(bits)
    bits.clear()
    world = World(drivers, {item.request_id: item for item in items}, rng)
    world.run()
    assert world.said == expected
    assert bits == rows
    assert world.num_points > 50
    assert token_ids(expected["golden"]) == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    assert all(finished(events).deterministic for events in expected.values())


def test_moved_about_without_the_promise(load: Load, stories: Path, golden: dict[str, Any]) -> None:
    drivers = [load(stories, context_length=512), load(stories, context_length=512)]
    items = {f"r{n}": story(f"r{n}") for n in range(7)}
    world = World(drivers, items, random.Random(2))
    world.run()
    assert world.num_points > 50
    expected = golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    assert all(token_ids(events) == expected for events in world.said.values())


TEXTS = ["Once upon a time", "  two  spaces ", "你好，世界 🎉", "", "a\0b\n\ttab", "<s>", "é" * 40]


def test_its_vocabulary_is_the_tokenizers(
    stories: Path, test_data: Path, golden: dict[str, Any]
) -> None:
    preparer = make(str(stories))
    for words, ids in golden["encode_examples"].items():
        item = PrepareItem("r", "", "", TextPrompt(words), 512)
        assert np.frombuffer(preparer.prepare(item).tokens, np.int32).tolist() == ids
    theirs = Tokenizer.from_file(str(test_data / "models" / "stories260k" / "tokenizer.json"))
    for words in TEXTS[:3]:
        item = PrepareItem("r", "", "", TextPrompt(words), 512)
        found = np.frombuffer(preparer.prepare(item).tokens, np.int32).tolist()
        assert found == theirs.encode(words).ids, words


def test_text_comes_back(load: Load, stories: Path) -> None:
    vocab = load(stories)._open().vocab
    for words in TEXTS:
        ids = [i for i in vocab.encode(words, special=True) if i != 1]
        assert vocab.decoding().start([1]).push(ids) == words.replace("<s>", "")


def test_a_chat_by_the_files_template(tmp_path: Path) -> None:
    make_gguf(tmp_path)
    preparer = make(str(tmp_path))
    prompt = ChatPrompt([{"role": "t", "content": "hot"}])
    prepared = preparer.prepare(PrepareItem("r", "", "", prompt, 300))
    rendered = preparer.prepare(PrepareItem("r", "", "", TextPrompt("<t>hot<a>"), 300))
    tokens = np.frombuffer(prepared.tokens, np.int32).tolist()
    assert tokens == np.frombuffer(rendered.tokens, np.int32).tolist()[1:]  # less the `<s>`


HI = [{"role": "user", "content": "hot"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def test_tools_are_told_in_words_and_calls_are_looked_for(tmp_path: Path) -> None:
    make_gguf(tmp_path)
    preparer = make(str(tmp_path))
    plain = preparer.prepare(PrepareItem("r", "", "", ChatPrompt(HI), 300))
    with_tools = preparer.prepare(PrepareItem("r", "", "", ChatPrompt(HI, TOOLS), 300))
    assert (plain.tool_format, with_tools.tool_format) == ("", "hermes")
    assert with_tools.num_tokens > plain.num_tokens
    with pytest.raises(InvalidRequest, match="takes no grammar"):
        preparer.prepare(
            PrepareItem("r", "", "", ChatPrompt(HI, TOOLS, tool_choice="required"), 300)
        )
    with pytest.raises(InvalidRequest, match="takes no grammar"):
        preparer.prepare(
            PrepareItem("r", "", "", ChatPrompt(HI), 300, grammar=Grammar("regex", "a"))
        )


def test_special_tokens_are_shown_where_they_are_part_of_calls(load: Load, stories: Path) -> None:
    vocab = load(stories)._open().vocab
    special = vocab.special_ids()
    assert special == {"<s>": 1, "</s>": 2}
    ids = [*vocab.encode("hot", special=False), 1]
    assert vocab.decoding().start([1], [1]).push(ids) == "hot<s>"
    assert vocab.decoding().start([1], [2]).push(ids) == "hot"
    begun = vocab.decoding().start([1], [1])
    begun.push(ids)
    assert vocab.decoding().restart(begun.state(), [1]).push([1]) == "<s>"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 1}, "logprobs"),
        ({"logit_bias": [(5, 1.0)]}, "logit_bias"),
        ({"grammar": Grammar("regex", "a")}, "grammar"),
        ({"shown": [-1]}, "shown"),
    ],
)
def test_what_it_cannot_do_is_refused(
    load: Load, stories: Path, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(UserError) as refused:
        load(stories).submit(make_item("a", [1], **fields))
    assert refused.value.param == param


def test_stops_and_ends(load: Load, stories: Path) -> None:
    driver = load(stories, context_length=512)
    (stopped,) = drive(driver, [story("a", stop=[" red ball"])]).values()
    assert text(stopped).endswith("she saw a big,")
    assert finished(stopped).stop == " red ball"
    (stopped,) = drive(driver, [story("b", stop_token_ids=[426])]).values()
    assert token_ids(stopped)[-1] == 426
    assert 426 not in token_ids(stopped)[:-1]
    assert driver._snapshots.eos_ids(make_item("c", [1])) == {2}
    assert driver._snapshots.eos_ids(make_item("c", [1], ignore_eos=True)) == set()


def test_quantized_weights(
    load: Load, stories: Path, tmp_path: Path, golden: dict[str, Any]
) -> None:
    """Q8_0 by llama.cpp itself, keys and values in float16: the story begins as it did, and goes
    on in another replica."""
    lib = library()
    asked = lib.llama_model_quantize_default_params()
    asked.ftype, asked.nthread = lib.LLAMA_FTYPE_MOSTLY_Q8_0, 1
    (tmp_path / "q8").mkdir()
    source, made = stories / "stories260k.gguf", tmp_path / "q8" / "m.gguf"
    assert lib.llama_model_quantize(str(source).encode(), str(made).encode(), asked) == 0
    facts = inspect(made.parent)
    assert (facts.quantization, facts.dtype, facts.kv_dtype) == ("Q8_0", "q8_0", "float16")
    assert facts.weights_bytes < inspect(stories).weights_bytes / 3
    a, b = (load(made.parent, context_length=512) for _ in range(2))
    item = make_item("a", [1], max_tokens=60, ignore_eos=True)
    expected = drive(a, [item])["a"]
    assert golden["text"].startswith(text(expected)[:100])
    said: list[Event] = []
    a.submit(item)
    while not said or not isinstance(said[-1], Finished):
        said += a.step()
        if a._seats.find("a"):
            b.resume(item, a.suspend("a"))
            a, b = b, a
    assert said == expected


def test_logits_that_are_not_finite_end_one_request(load: Load, tmp_path: Path) -> None:
    """And whoever has the sequence after it does not meet them."""
    tensors = tensors_of()
    tensors["token_embd.weight"][77] = np.nan
    (tmp_path / "nan.gguf").write_bytes(gguf_bytes(values_of(), tensors))
    driver = load(tmp_path)
    good = [make_item(f"g{n}", [5 + n, 6], max_tokens=20, ignore_eos=True) for n in range(3)]
    alone = {item.request_id: drive(driver, [item])[item.request_id] for item in good}
    bad = make_item("bad", [5, 77, 6], max_tokens=20)
    events = drive(driver, [*good, bad])
    assert isinstance(events.pop("bad")[-1], Failed)
    assert {r: token_ids(e) for r, e in events.items()} == {
        r: token_ids(e) for r, e in alone.items()
    }
    for _ in range(2):  # every sequence has a new owner
        again = [make_item(f"n{n}", [9, 8, 7], max_tokens=30) for n in range(4)]
        assert all(isinstance(e[-1], Finished) for e in drive(driver, again).values())
    assert driver.memory().kv_used_bytes == 0


def test_a_pass_that_fails_ends_those_in_it(
    load: Load, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(stories)
    lib = driver._open()._lib
    decode = lib.llama_decode
    left = [3]

    def failing(context: Any, batch: Any) -> int:
        left[0] -= 1
        return -3 if left[0] == 0 else decode(context, batch)

    monkeypatch.setattr(lib, "llama_decode", failing)
    events = drive(driver, [make_item(n, [5], max_tokens=9, ignore_eos=True) for n in "ab"])
    assert all(isinstance(e[-1], Failed) and len(e) == 3 for e in events.values())
    events = drive(driver, [make_item("c", [5], max_tokens=9, ignore_eos=True)])
    assert isinstance(events["c"][-1], Finished)


def test_a_state_that_cannot_be_used_ends_one_request(
    load: Load, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(stories)
    item = make_item("a", [5, 6], max_tokens=20, ignore_eos=True)
    driver.submit(item)
    driver.step()
    driver.resume(item, driver.suspend("a"))
    with monkeypatch.context() as patch:
        patch.setattr(driver._open()._lib, "llama_state_seq_set_data", lambda *_: 0)
        (event,) = driver.step()
    assert isinstance(event, Failed)
    assert driver.wait_s() is None
    assert isinstance(drive(driver, [item])["a"][-1], Finished)


def test_a_prompt_is_read_beside_running_answers(load: Load, stories: Path) -> None:
    driver = load(stories, context_length=512)
    driver.submit(story("a"))
    for _ in range(3):
        driver.step()
    driver._prefill_s_per_token = 10.0  # a slow machine: as little as may be
    driver.submit(make_item("b", [5] * 100, max_tokens=2, ignore_eos=True))
    shared = driver.step()
    assert [event.request_id for event in shared] == ["a"]
    assert driver._seats.find("b") is not None
    assert {e.request_id for _ in range(8) for e in driver.step()} == {"a", "b"}
    drive(driver)


def test_blocks_are_the_librarys() -> None:
    from llama_cpp import _ggml

    lib = _ggml.libggml_base if hasattr(_ggml, "libggml_base") else _ggml.libggml
    lib.ggml_type_size.restype = lib.ggml_blck_size.restype = int
    lib.ggml_type_name.restype = __import__("ctypes").c_char_p
    for number, (name, num_in_block, block_bytes) in BLOCKS.items():
        assert (lib.ggml_blck_size(number), lib.ggml_type_size(number)) == (
            num_in_block,
            block_bytes,
        )
        assert lib.ggml_type_name(number).decode().upper() == name


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (
            {k.replace("llama", "frobnicate"): v for k, v in values_of().items()}
            | {"general.architecture": (STRING, "frobnicate")},
            "unknown model architecture: 'frobnicate'",
        ),
        ({"tokenizer.ggml.model": (STRING, "frobnicate")}, "frobnicate"),
        ({"tokenizer.ggml.model": (STRING, "gpt2")}, "merges"),
    ],
)
def test_what_llama_cpp_refuses_it_says_why(
    load: Load, tmp_path: Path, values: dict[str, Any], match: str
) -> None:
    (tmp_path / "odd.gguf").write_bytes(gguf_bytes(values_of() | values, tensors_of()))
    with pytest.raises(ModelRejected, match=match):
        load(tmp_path)


def test_a_tensor_it_misses(load: Load, tmp_path: Path) -> None:
    tensors = tensors_of()
    del tensors["blk.1.ffn_up.weight"]
    (tmp_path / "less.gguf").write_bytes(gguf_bytes(values_of(), tensors))
    with pytest.raises(ModelRejected, match=r"less\.gguf.*blk\.1\.ffn_up"):
        load(tmp_path)


@pytest.mark.parametrize("fields", [{"device": "cuda:0"}, {"dtype": "bfloat16"}])
def test_what_it_cannot_do_is_said(load: Load, stories: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match=next(iter(fields.values()))):
        load(stories, **fields)


def test_no_room_is_an_error_and_no_end(
    load: Load, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(library(), "llama_init_from_model", lambda *_: None)
        with pytest.raises(LoadFailed, match="no context of 4 x 128"):
            load(stories)
    load(stories)


def test_a_driver_without_its_engine(
    load: Load, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(LoadFailed, match=r"pip install 'llmos\[gguf\]'"):
        load(stories)
    with pytest.raises(PluginError, match=r"pip install 'llmos\[gguf\]'"):
        make(str(stories))
