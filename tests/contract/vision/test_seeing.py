"""Chats with images: token for token what Transformers' processor and `generate` make of them."""

from __future__ import annotations

import ctypes
import io
import json
import threading
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from llmos.abi.events import Failed
from llmos.abi.inference import ChatPrompt, Prepared, PrepareItem, Sampling, WorkItem
from llmos.drivers.catalog import choose
from llmos.drivers.encoder.images import open_image
from llmos.drivers.encoder.rows import Asked
from llmos.drivers.native import eager
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.pictures import decode_pictures, encode_pictures
from llmos.drivers.resident import read_resident
from llmos.drivers.text.prepare import make as make_text
from llmos.drivers.vision.prepare import SightPreparer, make
from llmos.errors import EngineFailed, ModelRejected
from llmos.weights import inspect
from llmos.weights.footprint import ROWS, scratch_bytes, sight_bytes
from llmos.weights.seeing import find_tower
from tests.unit.drivers.encoder.media import blob, png, see_through
from tests.unit.drivers.tiny import drive, finished, make_spec, token_ids
from tests.unit.drivers.vision.folders import FAMILIES, make_seeing

MAX_NEW = 9
IMAGES = {"wide": png(90, 40, seed=1), "tall": png(20, 64, seed=2), "small": png(9, 9, seed=3)}
TRANSPARENT = {mode: see_through(mode) for mode in ("RGBA", "LA", "P")}
WORD = "<image>"
SPLITTING = ("Idefics3ImageProcessorPil", "SmolVLMImageProcessorPil")
Said = list[str]
"""Words, and names of images among them."""

CHATS: list[Said] = [
    ["wide", "what is it?"],
    ["the first", "tall", " and the second", "small", " differ how?"],
    ["no image at all"],
    ["small", "wide", "tall"],
]


def images_of(said: Said) -> list[Any]:
    return [Image.open(io.BytesIO(IMAGES[word])) for word in said if word in IMAGES]


def prepare(preparer: SightPreparer, said: Said, folder: Path, name: str) -> Prepared:
    blobs = []
    parts: list[dict[str, Any]] = []
    for at, word in enumerate(said):
        if word not in IMAGES:
            parts.append({"type": "text", "text": word})
            continue
        parts.append({"type": "image", "blob": len(blobs), "where": f"messages.1.content.{at}"})
        blobs.append(blob(folder, f"{name}-{at}", IMAGES[word]))
    messages = [{"role": "system", "content": "see"}, {"role": "user", "content": parts}]
    content = parts if blobs else said[0]
    messages[1]["content"] = content
    prompt = ChatPrompt(messages, blobs=blobs)
    asked = PrepareItem(name, "e", "f", prompt, 1000, spill=str(folder / f"{name}.spill"))
    return preparer.prepare(asked)


def work(name: str, prepared: Prepared, max_tokens: int = MAX_NEW) -> WorkItem:
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    return WorkItem(name, prepared.tokens, sampling, payload=prepared.payload, spill=prepared.spill)


class Theirs:
    """Transformers' processor and model."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def pixels(self, said: Said) -> dict[str, Any]:
        found = images_of(said)
        return dict(self.processor(found, return_tensors="pt")) if found else {}

    def tokens(self, said: Said) -> list[int]:
        """As its processor makes them: the image's word as often as the image has tokens."""
        text = "".join(f"({WORD})" if one in IMAGES else one for one in said)
        whole = f"system:see\nuser:{text}\nassistant:"
        if type(self.processor).__name__ in SPLITTING and images_of(said):
            processor = transformers.Idefics3Processor(self.processor, self.tokenizer, 4)
            made = processor(images_of(said), whole, add_special_tokens=False)
            return list(made["input_ids"][0])
        seen = self.pixels(said)
        if "image_grid_thw" in seen:
            counts = [int(grid.prod()) // 4 for grid in seen["image_grid_thw"]]
        else:
            side = seen["pixel_values"].shape[-1] // 7 if seen else 0
            counts = [side * side] * len(said)
        first, *rest = whole.split(WORD)
        text = first + "".join(WORD * count + one for count, one in zip(counts, rest, strict=False))
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def generate(self, said: Said, tokens: list[int]) -> list[int]:
        ids = torch.tensor([tokens])
        more = self.pixels(said)
        if "image_grid_thw" in more:
            more["mm_token_type_ids"] = (ids == self.model.config.image_token_id).int()
        made = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=MAX_NEW,
            min_new_tokens=MAX_NEW,
            eos_token_id=None,
            **more,
        )
        new: list[int] = made[0, len(tokens) :].tolist()
        return new


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeing(tmp_path_factory.mktemp("seeing") / request.param, request.param)


def load(folder: Path, **fields: Any) -> NativeDriver:
    driver = NativeDriver()
    driver.load(make_spec(folder, **({"context_length": 192} | fields)), lambda done, what: None)
    return driver


def test_pixels_are_those_of_transformers(folder: Path) -> None:
    theirs, preparer = Theirs(folder), make(str(folder))
    for data in [*IMAGES.values(), *TRANSPARENT.values()]:
        asked = Asked([], None, [], 0, "")
        parts = preparer._read(open_image(data, asked))
        mine = np.concatenate([one.values for one in parts if not isinstance(one, str)])
        found = theirs.processor([Image.open(io.BytesIO(data))], return_tensors="pt")
        wanted = found["pixel_values"].numpy()
        assert np.abs(mine - wanted.reshape(mine.shape)).max() < 1e-5


def test_it_writes_what_generate_writes(folder: Path, tmp_path: Path) -> None:
    """All chats share the batch."""
    theirs, preparer = Theirs(folder), make(str(folder))
    items, wanted = [], {}
    for number, said in enumerate(CHATS):
        name = f"r{number}"
        prepared = prepare(preparer, said, tmp_path, name)
        tokens = array("i", prepared.tokens).tolist()
        assert tokens == theirs.tokens(said)
        assert prepared.num_tokens == len(tokens)
        wanted[name] = theirs.generate(said, tokens)
        items.append(work(name, prepared))
    events = drive(load(folder), items)
    assert {name: token_ids(said) for name, said in events.items()} == wanted
    assert len(set(map(tuple, wanted.values()))) == len(CHATS)
    assert finished(events["r0"]).usage.prompt_tokens == len(theirs.tokens(CHATS[0]))


def test_it_sees(folder: Path, tmp_path: Path) -> None:
    """Another image, another answer."""
    preparer = make(str(folder))
    said = [["wide", "what?"], ["tall", "what?"]]
    items = [work(f"r{i}", prepare(preparer, one, tmp_path, f"r{i}")) for i, one in enumerate(said)]
    events = drive(load(folder), items)
    assert token_ids(events["r0"]) != token_ids(events["r1"])


@pytest.mark.parametrize("after", [1, 2, 5])
def test_it_is_suspended_and_recomputed(folder: Path, tmp_path: Path, after: int) -> None:
    """While it reads the images, and while it writes; and by another replica from its tokens."""
    preparer = make(str(folder))
    said = CHATS[1] * 3
    item = work("r", prepare(preparer, said, tmp_path, "r"))
    driver = load(folder, context_length=512)
    whole = token_ids(drive(driver, [item])["r"])
    driver.submit(item)
    before = [event for _ in range(after) for event in driver.step()]
    snapshot = driver.suspend("r", str(tmp_path))
    other = load(folder, context_length=512)
    other.resume(item, snapshot)
    assert token_ids(before) + token_ids(drive(other)["r"]) == whole
    some = array("i", whole[:4]).tobytes()
    again = drive(other, [msgspec.structs.replace(item, generated=some)])
    assert token_ids(again["r"]) == whole[4:]


LARGEST = {
    "llava": (
        {"hidden_size": 256, "intermediate_size": 1024, "image_size": 7 * 34},
        ([3, 7 * 34, 7 * 34], [], 34 * 34),
    ),
    "qwen2-vl": ({"embed_dim": 256}, ([5120, 3 * 2 * 7 * 7], [32, 40], 1280)),
    "qwen3-vl": (
        {"hidden_size": 256, "intermediate_size": 1024},
        ([5120, 3 * 2 * 7 * 7], [32, 40], 1280),
    ),
    "idefics3": (
        {"hidden_size": 256, "intermediate_size": 1024, "image_size": 7 * 70},
        ([3, 7 * 70, 7 * 70], [], 35 * 35),
    ),
}
"""Other sizes of a tower, and the largest image that it is asked to read: its pixels' shape, grid
and tokens."""


@pytest.mark.parametrize("family", LARGEST)
def test_what_looking_takes_is_reserved(tmp_path: Path, family: str) -> None:
    """A wider tower and the largest image, against the process's own peak."""
    sizes, (shape, grid, num_tokens) = LARGEST[family]
    folder = make_seeing(tmp_path / "model", family, **sizes)
    tower = find_tower(folder)
    assert tower is not None
    assert tower.num_tokens - num_tokens == (family == "llava")  # that of a class, which is cut
    driver = load(folder)
    eyes = driver._model()._eyes  # type: ignore[attr-defined]
    pixels = np.zeros(shape, dtype=np.float32)
    pixels[0, 0] = 1
    before = resettled()
    seen = eyes._look(pixels, num_tokens, grid)
    took = read_resident().peak_bytes - before
    assert seen.numel() == num_tokens * tower.out_width
    assert took <= sight_bytes(tower, ROWS, 4)


def resettled() -> int:
    """Bytes that are held, from which on the peak is counted anew. What was freed is given back:
    who takes it again would seem to take nothing."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return read_resident().rss_bytes


@pytest.mark.parametrize("family", ["llava", "qwen2-vl"])
def test_a_processor_of_another_model_is_refused_at_once(tmp_path: Path, family: str) -> None:
    folder = make_seeing(tmp_path / "model", family)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    crop = {"size": {"shortest_edge": 21}, "crop_size": {"height": 21, "width": 21}}
    other = {"merge_size": 4} if family == "qwen2-vl" else crop
    path.write_text(json.dumps(settings | other))
    with pytest.raises(ModelRejected, match="its processor is not of this model"):
        load(folder)


def test_a_small_image_over_its_bounds_is_the_folder_s_fault(tmp_path: Path) -> None:
    folder = make_seeing(tmp_path / "model", "qwen2-vl")
    path = folder / "preprocessor_config.json"
    more = {"min_pixels": 2000 * 14 * 14, "max_pixels": 12_845_056}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    with pytest.raises(ModelRejected, match="would be read as"):
        load(folder)


def test_a_tower_that_sees_no_numbers_is_refused(tmp_path: Path) -> None:
    folder = make_seeing(tmp_path / "model", "llava")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    (name,) = [name for name in tensors if name.endswith("multi_modal_projector.linear_2.bias")]
    tensors[name][0] = float("inf")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelRejected, match="not finite"):
        load(folder)


def test_others_go_on_while_it_looks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower is gone through in turns with steps, and given up with its request."""
    monkeypatch.setattr(eager, "LIMITS", msgspec.structs.replace(LIMITS, prefill_s_per_step=0.0))
    preparer = make(str(folder))
    driver = load(folder)
    driver.submit(work("text", prepare(preparer, CHATS[2], tmp_path, "text"), 60))
    while not token_ids(driver.step()):
        pass
    driver.submit(work("sees", prepare(preparer, CHATS[0], tmp_path, "sees")))
    driver.submit(work("next", prepare(preparer, CHATS[0], tmp_path, "next")))
    steps = [{event.request_id for event in driver.step()} for _ in range(2)]
    assert all(said <= {"text"} for said in steps)
    assert any(steps)
    (thread,) = [one for one in threading.enumerate() if one.name == "turns"]
    driver.abort("sees", "enough")
    thread.join(30)
    assert not thread.is_alive()
    events = drive(driver)
    assert len(token_ids(events["next"])) == MAX_NEW


def test_an_image_of_other_tokens_is_its_request_s_end_alone(folder: Path, tmp_path: Path) -> None:
    """As if the folder had been changed behind the replica's back."""
    preparer = make(str(folder))
    said = ["wide", "what?"]
    good = work("good", prepare(preparer, said, tmp_path, "good"))
    bad = work("bad", prepare(preparer, said, tmp_path, "bad"))
    *others, picture = decode_pictures(bad.payload, len(bad.tokens) // 4)
    shorter = msgspec.structs.replace(picture, end=picture.end - 1)
    bad = msgspec.structs.replace(bad, payload=encode_pictures([*others, shorter]))
    events = drive(load(folder), [bad, good])
    (failed,) = events["bad"]
    assert isinstance(failed, Failed)
    assert failed.error.code == EngineFailed.code
    assert len(token_ids(events["good"])) == MAX_NEW


def test_its_folder_is_read(folder: Path) -> None:
    facts = inspect(folder)
    choice = choose(facts)
    assert (choice.driver, choice.kinds) == ("native", ["generate"])
    assert choice.prepare == "llmos.drivers.vision.prepare:make"
    assert facts.has_chat_template
    assert set(facts.loads) == {"bfloat16", "float16", "float32"}  # those that torch loads
    driver = load(folder)
    tower = find_tower(folder)
    runner = driver._model()
    assert isinstance(runner, EagerRunner)
    scratch = scratch_bytes(runner.loaded.shape(), ROWS, facts.context_length)
    scratch += sight_bytes(tower, ROWS, 4)
    assert facts.footprint_bytes >= driver.memory().weights_bytes + scratch
    own = scratch_bytes(runner.loaded.shape(), runner.num_slots, runner.loaded.context_length)
    own += sight_bytes(tower, runner.num_slots, 4)
    assert runner._accounts._scratch_bytes == own
    text = make_text(str(folder))
    prompt = ChatPrompt([{"role": "user", "content": "hi"}])
    assert text.prepare(PrepareItem("r", "e", "f", prompt, 1000)).num_tokens
