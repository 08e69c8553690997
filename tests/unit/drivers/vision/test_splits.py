"""Images cut into squares: how many, what is written around them, and which folders are refused."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from llmos.drivers.pictures import Pixels, decode_pictures
from llmos.drivers.vision.prepare import make
from llmos.drivers.vision.splits import SplitReader
from llmos.errors import ModelRejected, PayloadTooLarge
from llmos.weights.seeing import SPLIT_TOKENS, find_tower
from tests.unit.drivers.encoder.media import blob, png, write_json
from tests.unit.drivers.vision.folders import IMAGE, write_words
from tests.unit.drivers.vision.test_prepare import ask, image, said

VISION = {"hidden_size": 32, "image_size": 28, "patch_size": 7}
SETTINGS = {
    "image_processor_type": "SmolVLMImageProcessor",
    "size": {"longest_edge": 84},
    "max_image_size": {"longest_edge": 28},
}


def make_folder(folder: Path, settings: dict[str, Any] = SETTINGS, **vision: Any) -> Path:
    folder.mkdir()
    config = {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": "smolvlm",
        "image_token_id": write_words(folder),
        "vision_config": VISION | vision,
        "text_config": {"model_type": "llama", "hidden_size": 16},
    }
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def reader(folder: Path, **settings: Any) -> SplitReader:
    return SplitReader(make_folder(folder), SETTINGS | settings)


def words(parts: list[str | Pixels]) -> str:
    return "".join(part if isinstance(part, str) else "*" for part in parts)


def blank(width: int, height: int) -> Any:
    from PIL import Image

    return Image.new("RGB", (width, height), (255, 0, 0))


AROUND = "<fake_token_around_image>"
WHOLE = f"{AROUND}<global-img>*{AROUND}"


def test_squares_row_by_row_and_the_whole(tmp_path: Path) -> None:
    read = reader(tmp_path / "m")
    first, second, third = (f"{AROUND}<row_1_col_{n}>*" for n in (1, 2, 3))
    assert words(read(blank(90, 20))) == f"{first}{second}{third}\n\n{WHOLE}"
    parts = read(blank(5, 7))  # it grows: 60 x 84
    rows = "".join(
        "".join(f"{AROUND}<row_{row}_col_{column}>*" for column in (1, 2, 3)) + "\n"
        for row in (1, 2, 3)
    )
    assert words(parts) == f"{rows}\n{WHOLE}"
    pixels = [part for part in parts if not isinstance(part, str)]
    assert {part.values.shape for part in pixels} == {(3, 28, 28)}
    assert {part.num_tokens for part in pixels} == {4}
    assert [part.values[:, 0, 0].round().tolist() for part in pixels] == [[1, -1, -1]] * 10


def test_one_square_alone(tmp_path: Path) -> None:
    assert words(reader(tmp_path / "a", do_image_splitting=False)(blank(90, 20))) == WHOLE
    assert words(reader(tmp_path / "b", size={"longest_edge": 28})(blank(90, 20))) == WHOLE


@pytest.mark.parametrize("sides", [(1, 60_000), (60_000, 1), (1, 1)])
def test_no_side_is_nothing(tmp_path: Path, sides: tuple[int, int]) -> None:
    parts = reader(tmp_path / "m")(blank(*sides))
    assert len([part for part in parts if not isinstance(part, str)]) in (4, 10)


def test_an_image_is_bounded_in_tokens(tmp_path: Path) -> None:
    """Where its processor would allow 146 squares, of 196 tokens each."""
    folder = make_folder(tmp_path / "m", image_size=196)
    sizes = {"max_image_size": {"longest_edge": 196}, "size": {"longest_edge": 4096}}
    parts = SplitReader(folder, SETTINGS | sizes)(blank(300, 300))
    seen = [part.num_tokens for part in parts if not isinstance(part, str)]
    assert seen == [196] * 17
    assert sum(seen) <= SPLIT_TOKENS < (5 * 5 + 1) * 196


def test_a_chat_has_the_words_and_where_each_square_is(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    preparer = make(str(folder))
    blobs = [blob(tmp_path, "a", png(90, 20)), blob(tmp_path, "b", png(20, 90))]
    made = ask(preparer, tmp_path, image(0), said("and"), image(1), blobs=blobs)
    ids = array("i", made.tokens).tolist()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pictures = decode_pictures(made.payload, made.num_tokens)
    assert [picture.end - picture.begin for picture in pictures] == [4] * 8
    assert [picture.start for picture in pictures] == [at * 3 * 28 * 28 for at in range(8)]
    token = tokenizer.token_to_id(IMAGE)
    places = [at for at, one in enumerate(ids) if one == token]
    assert places == [at for picture in pictures for at in range(picture.begin, picture.end)]
    before = [tokenizer.id_to_token(ids[picture.begin - 1]) for picture in pictures[:4]]
    assert before[:2] + before[3:] == ["<row_1_col_1>", "<row_1_col_2>", "<global-img>"]
    assert tokenizer.id_to_token(ids[pictures[3].end]) == AROUND


def test_smolvlm_s_own_sizes(tmp_path: Path) -> None:
    """Of its 256 M version: squares of 512 pixels, 64 tokens each."""
    folder = make_folder(tmp_path / "m", hidden_size=768, image_size=512, patch_size=16)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale_factor": 4}))
    write_json(folder / "processor_config.json", {"image_seq_len": 64})
    tower = find_tower(folder)
    assert tower is not None
    assert (tower.num_patches, tower.num_tokens, tower.out_width) == (1024, 64, 16)
    sizes = {"max_image_size": {"longest_edge": 512}, "size": {"longest_edge": 2048}}
    parts = SplitReader(folder, SETTINGS | sizes)(blank(40, 30))
    assert len([part for part in parts if not isinstance(part, str)]) == 4 * 3 + 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "Idefics3ImageProcessor, Smol"),
        ({"size": {"height": 9, "width": 9}}, "size has no longest_edge"),
        ({"size": 84}, "size has no longest_edge"),
        ({"max_image_size": {"longest_edge": 14}}, "image_size of 28"),
        ({"max_image_size": {"longest_edge": -1}}, "longest_edge is no count"),
        ({"do_rescale": False}, "do_rescale"),
    ],
)
def test_folders_that_are_not_read(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    folder = make_folder(tmp_path / "m", SETTINGS | settings)
    with pytest.raises(ModelRejected, match=why):
        make(str(folder))


def test_a_tokenizer_or_a_length_of_another_model(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    write_json(folder / "processor_config.json", {"image_seq_len": 169})
    with pytest.raises(ModelRejected, match="image_seq_len 169, but the model has 4"):
        make(str(folder))
    write_json(folder / "processor_config.json", {"image_seq_len": 4})
    make(str(folder))
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace(AROUND, "<other>"))
    with pytest.raises(ModelRejected, match=f"{AROUND} is missing"):
        make(str(folder))


def test_squares_of_too_many_pixels_or_tokens(tmp_path: Path) -> None:
    large = {"max_image_size": {"longest_edge": 20_000}}
    folder = make_folder(tmp_path / "a", SETTINGS | large, image_size=20_000, patch_size=1000)
    with pytest.raises(ModelRejected, match="20000 is over 4096"):
        SplitReader(folder, SETTINGS | large)
    many = {"max_image_size": {"longest_edge": 504}}
    folder = make_folder(tmp_path / "b", SETTINGS | many, image_size=504)
    with pytest.raises(PayloadTooLarge, match="1296 tokens"):
        ask(make(str(folder)), tmp_path, image(), blobs=[blob(tmp_path, "png", png(9, 9))])


def test_squares_are_bounded_together_before_they_are_made(tmp_path: Path) -> None:
    """4 of 4,000 x 4,000 and the whole are 960 MB; one of 4,096 alone is read."""
    large = {"max_image_size": {"longest_edge": 4000}, "size": {"longest_edge": 8000}}
    folder = make_folder(tmp_path / "a", SETTINGS | large, image_size=4000, patch_size=1000)
    read = SplitReader(folder, SETTINGS | large)

    class Unread:
        width = height = 100

    with pytest.raises(PayloadTooLarge, match="960000000 bytes in squares"):
        read(Unread())
    alone = SETTINGS | large | {"do_image_splitting": False}
    assert words(SplitReader(folder, alone)(blank(9, 9))) == WHOLE


def test_layers_of_a_tower_that_are_no_list(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", deepstack_visual_indexes=7)
    path = folder / "config.json"
    kinds = {"architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl"}
    path.write_text(json.dumps(json.loads(path.read_text()) | kinds))
    with pytest.raises(ModelRejected, match="deepstack_visual_indexes"):
        find_tower(folder)
