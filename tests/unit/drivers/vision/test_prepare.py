"""Chats with images made ready, without a model: what becomes of them, and what is refused."""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.blob import BlobRef
from llmos.abi.inference import ChatPrompt, Prepared, PrepareItem
from llmos.drivers.pictures import Picture, decode_pictures, encode_pictures, places_of
from llmos.drivers.vision.prepare import SightPreparer, make
from llmos.drivers.vision.tiles import TileReader
from llmos.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    LLMOSError,
    ModelRejected,
    PayloadTooLarge,
    UnsupportedParameter,
)
from llmos.weights.seeing import IMAGE_TOKENS
from tests.unit.drivers.encoder.media import blob, png, write_json
from tests.unit.drivers.vision.folders import IMAGE, TEMPLATE, write_words

CLIP = {"image_processor_type": "CLIPImageProcessor"}
QWEN = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 784, "max_pixels": 7840}


def make_folder(folder: Path, architecture: str, settings: dict[str, Any]) -> Path:
    folder.mkdir()
    token_id = write_words(folder)
    vision = {"patch_size": 14, "model_type": "clip_vision_model"}
    config = {"architectures": [architecture], "image_token_id": token_id, "vision_config": vision}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", settings)
    return folder


@pytest.fixture
def llava(tmp_path: Path) -> SightPreparer:
    return make(str(make_folder(tmp_path / "llava", "LlavaForConditionalGeneration", CLIP)))


def ask(
    preparer: SightPreparer,
    folder: Path,
    *parts: dict[str, Any],
    blobs: list[BlobRef] | None = None,
) -> Prepared:
    prompt = ChatPrompt([{"role": "user", "content": list(parts)}], blobs=blobs or [])
    (folder / "spill").unlink(missing_ok=True)
    return preparer.prepare(PrepareItem("r", "e", "f", prompt, 1000, spill=str(folder / "spill")))


def image(number: int = 0) -> dict[str, Any]:
    return {"type": "image", "blob": number, "where": f"messages.0.content.{number}"}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_an_image_is_as_many_tokens_as_it_has_patches(llava: SightPreparer, tmp_path: Path) -> None:
    images = [blob(tmp_path, "a", png(500, 30)), blob(tmp_path, "b", png(8, 8, mode="L"))]
    made = ask(llava, tmp_path, image(0), said("and"), image(1), blobs=images)
    ids = array("i", made.tokens).tolist()
    first, second = decode_pictures(made.payload, len(ids))
    assert first.end - first.begin == second.end - second.begin == 16 * 16
    assert (first.shape, second.start) == ([3, 224, 224], 3 * 224 * 224)
    assert ids[first.begin : first.end] == [ids[first.begin]] * 256
    assert ids.count(ids[first.begin]) == 512
    assert Path(made.spill).stat().st_size == 2 * 4 * 3 * 224 * 224


def test_a_text_alone_spills_nothing(llava: SightPreparer, tmp_path: Path) -> None:
    prompt = ChatPrompt([{"role": "user", "content": "hi"}])
    made = llava.prepare(PrepareItem("r", "e", "f", prompt, 1000, spill=str(tmp_path / "spill")))
    assert (made.payload, made.spill) == (b"", "")
    assert not (tmp_path / "spill").exists()


def test_a_template_that_knows_no_parts(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "old", "LlavaForConditionalGeneration", CLIP)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    made = ask(
        make(str(folder)), tmp_path, said("a"), image(), blobs=[blob(tmp_path, "a", png(9, 9))]
    )
    (picture,) = decode_pictures(made.payload, made.num_tokens)
    assert (picture.begin, picture.end) == (made.num_tokens - 256, made.num_tokens)


def bomb(width: int, height: int) -> bytes:
    """A few bytes that claim to be very many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        made += struct.pack(">I", len(body)) + kind + body
        made += struct.pack(">I", zlib.crc32(kind + body))
    return made


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"junk", InvalidRequest),
        (b"", InvalidRequest),
        (png(60, 60)[:200], InvalidRequest),
        (b"%PDF-1.4", InvalidRequest),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", InvalidRequest),
        (bomb(60_000, 60_000), PayloadTooLarge),  # Pillow itself refuses it
        (bomb(10_000, 10_000), PayloadTooLarge),  # or warns
        (bomb(10_000, 8_000), PayloadTooLarge),
        (bomb(1, 60_000), PayloadTooLarge),
    ],
    ids=range(9),
)
def test_what_is_no_image_is_named(
    llava: SightPreparer, tmp_path: Path, data: bytes, error: type[LLMOSError]
) -> None:
    blobs = [blob(tmp_path, "a", png(9, 9)), blob(tmp_path, "b", data)]
    with pytest.raises(error) as caught:
        ask(llava, tmp_path, image(0), image(1), blobs=blobs)
    assert caught.value.param == "messages.0.content.1"
    assert " at 0x" not in str(caught.value)


def test_images_that_are_elsewhere_or_written_out(llava: SightPreparer, tmp_path: Path) -> None:
    far = {"type": "image_url", "image_url": {"url": "https://a/b"}, "where": "input.0.content.2"}
    with pytest.raises(UnsupportedParameter, match="fetches nothing") as refused:
        ask(llava, tmp_path, said("a"), far)
    assert refused.value.param == "input.0.content.2.image_url.url"


def test_the_word_of_an_image_belongs_to_no_text(llava: SightPreparer, tmp_path: Path) -> None:
    """Beside an image, and without one: it would be a token that nothing is seen at."""
    blobs = [blob(tmp_path, "a", png(9, 9))]
    with pytest.raises(InvalidRequest, match="own word for an image") as refused:
        ask(llava, tmp_path, image(), said("a"), said(f"a {IMAGE}"), blobs=blobs)
    assert refused.value.param == "messages.0.content.2"
    chat = ChatPrompt([{"role": "system", "content": "b"}, {"role": "user", "content": IMAGE}])
    with pytest.raises(InvalidRequest, match="own word for an image") as refused:
        llava.prepare(PrepareItem("r", "e", "f", chat, 1000))
    assert refused.value.param == "messages.1.content"


def test_a_template_that_leaves_an_image_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "LlavaForConditionalGeneration", CLIP)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'][0]['type'] }}")
    blobs = [blob(tmp_path, "a", png(9, 9))]
    with pytest.raises(InvalidRequest, match="1 images, and 0 places") as refused:
        ask(make(str(folder)), tmp_path, image(), blobs=blobs)
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    ("architecture", "settings", "why"),
    [
        ("LlavaForConditionalGeneration", {}, "None"),
        ("LlavaForConditionalGeneration", QWEN, "Qwen2VLImageProcessor"),
        ("LlavaForConditionalGeneration", CLIP | {"do_pad": True}, "do_pad"),
        ("Qwen2VLForConditionalGeneration", CLIP, "Qwen2VLImageProcessor is"),
        ("Qwen2VLForConditionalGeneration", QWEN | {"patch_size": 0}, "patch_size"),
        ("Qwen2VLForConditionalGeneration", QWEN | {"do_resize": False}, "do_resize"),
        ("LlamaForCausalLM", CLIP, "not known to read images"),
    ],
)
def test_folders_that_are_not_read(
    tmp_path: Path, architecture: str, settings: dict[str, Any], why: str
) -> None:
    folder = make_folder(tmp_path / "model", architecture, settings)
    with pytest.raises(ModelRejected, match=why):
        make(str(folder))


def test_settings_among_those_of_all_processors(tmp_path: Path) -> None:
    """As newer folders have them."""
    folder = make_folder(tmp_path / "model", "Qwen2VLForConditionalGeneration", {})
    (folder / "preprocessor_config.json").unlink()
    write_json(folder / "processor_config.json", {"image_processor": QWEN})
    blobs = [blob(tmp_path, "a", png(56, 84))]
    made = ask(make(str(folder)), tmp_path, image(), blobs=blobs)
    (picture,) = decode_pictures(made.payload, made.num_tokens)
    assert (picture.grid, picture.shape) == ([3, 2], [24, 3 * 2 * 14 * 14])
    (folder / "config.json").write_text(json.dumps({"architectures": []}))
    with pytest.raises(ModelRejected, match="image_token_id"):
        make(str(folder))


def test_sides_within_bounds() -> None:
    reader = TileReader(QWEN)
    assert reader._size(28, 28) == (28, 28)
    assert reader._size(1000, 1000) == (84, 84)
    assert reader._size(3, 40) == (28, 112)
    with pytest.raises(InvalidRequest, match="200 times"):
        reader._size(3, 601)
    with pytest.raises(PayloadTooLarge):
        TileReader({"min_pixels": 1 << 30, "max_pixels": 1 << 31})._size(9, 9)
    assert TEMPLATE.count(IMAGE) == 1


def test_no_image_is_read_in_more_tokens_than_a_tower_takes(tmp_path: Path) -> None:
    """A few bytes of one colour, where the processor would allow 16,384."""
    folder = make_folder(
        tmp_path / "model", "Qwen2VLForConditionalGeneration", QWEN | {"max_pixels": 12_845_056}
    )
    preparer = make(str(folder))
    made = ask(preparer, tmp_path, image(), blobs=[blob(tmp_path, "a", png(3584, 3584, mode="1"))])
    (picture,) = decode_pictures(made.payload, made.num_tokens)
    assert picture.grid == [35, 35]
    assert picture.end - picture.begin <= IMAGE_TOKENS
    wide = TileReader(QWEN | {"max_pixels": 12_845_056})
    for sides in ((9000, 50), (50, 9000), (8000, 8000), (1015, 1000)):
        width, height = wide._size(*sides)
        assert width * height <= IMAGE_TOKENS * 28 * 28
    with pytest.raises(PayloadTooLarge):
        TileReader(QWEN | {"min_pixels": 2000 * 784, "max_pixels": 12_845_056})._size(9, 9)


def test_a_tower_of_too_many_patches(tmp_path: Path) -> None:
    size = {"size": {"height": 14 * 36, "width": 14 * 36}}
    settings = {"image_processor_type": "SiglipImageProcessor", **size}
    folder = make_folder(tmp_path / "model", "LlavaForConditionalGeneration", settings)
    with pytest.raises(PayloadTooLarge, match="1296 tokens") as caught:
        ask(make(str(folder)), tmp_path, image(), blobs=[blob(tmp_path, "a", png(9, 9))])
    assert caught.value.param == "messages.0.content.0"


@pytest.mark.parametrize(
    ("context_length", "num_images", "error", "at"),
    [(256, 1, ContextLengthExceeded, 0), (600, 3, ContextLengthExceeded, 2), (0, 41, None, 40)],
)
def test_what_does_not_fit_is_refused_before_it_is_written(
    llava: SightPreparer,
    tmp_path: Path,
    context_length: int,
    num_images: int,
    error: type[LLMOSError] | None,
    at: int,
) -> None:
    """The number of all its images, too: 41 of 256 tokens are more than a request may have."""
    blobs = [blob(tmp_path, "a", png(9, 9))] * num_images
    prompt = ChatPrompt([{"role": "user", "content": list(map(image, range(num_images)))}])
    prompt = msgspec.structs.replace(prompt, blobs=blobs)
    spill = tmp_path / "spill"
    item = PrepareItem("r", "e", "f", prompt, 1000, context_length=context_length, spill=str(spill))
    with pytest.raises(error or PayloadTooLarge) as caught:
        llava.prepare(item)
    assert caught.value.param == f"messages.0.content.{at}"
    written = spill.stat().st_size if spill.exists() else 0
    assert written == at * 4 * 3 * 224 * 224


def test_places_of_images() -> None:
    pictures = [Picture(1, 7, 0, [1], [2, 3]), Picture(8, 9, 0, [1], [1, 1])]
    (times, rows, columns), lag = places_of(11, pictures)
    assert times == [0, 1, 1, 1, 1, 1, 1, 4, 5, 6, 7]
    assert rows == [0, 1, 1, 1, 2, 2, 2, 4, 5, 6, 7]
    assert columns == [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7]
    assert lag == 11 - 8


def test_a_payload_that_nobody_prepared() -> None:
    whole = encode_pictures([Picture(0, 4, 0, [1])])
    assert len(decode_pictures(whole, 4)) == 1
    for payload, num_tokens in ((whole, 3), (b"junk", 9), (whole[:-2], 9)):
        with pytest.raises(InvalidRequest):
            decode_pictures(payload, num_tokens)
    twice = encode_pictures([Picture(0, 4, 0, [1]), Picture(3, 5, 0, [1])])
    with pytest.raises(InvalidRequest):
        decode_pictures(twice, 9)
