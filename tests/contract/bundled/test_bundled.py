"""The bundled encoders: whole, small, loadable, as good as their cards say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel

from llmos.drivers.catalog import choose
from llmos.library.catalogue import find_entry
from llmos.weights import inspect
from tools.small import bundle, evaluate, paths, tokenizer, train

FILES = {
    *("README.md", "config.json", "evaluation.json", "model.safetensors", "recipe.json"),
    *("tokenizer.json", "tokenizer_config.json"),
}
FOLDERS = {"sentiment": paths.SENTIMENT, "embedding": paths.EMBEDDING}


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text("utf-8"))


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_all_there_and_small(name: str) -> None:
    folder = FOLDERS[name]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    more = {"modules.json", "1_Pooling/config.json"} if name == "embedding" else set()
    assert found == FILES | more
    assert bundle.size_bytes(folder) <= paths.MAX_FOLDER_BYTES


@pytest.mark.parametrize("name", FOLDERS)
def test_weights_are_those_of_the_record(name: str) -> None:
    record = _read(FOLDERS[name], "recipe.json")
    weights = (FOLDERS[name] / "model.safetensors").read_bytes()
    assert record["sha256"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_tokenizer_is_what_the_lists_make(name: str) -> None:
    made = json.loads(tokenizer.make().to_str())
    assert _read(FOLDERS[name], "tokenizer.json") == made


@pytest.mark.parametrize(
    ("name", "kind"), [("sentiment", "text-classification"), ("embedding", "embeddings")]
)
def test_the_encoder_driver_takes_it(name: str, kind: str) -> None:
    choice = choose(inspect(FOLDERS[name]))
    assert (choice.driver, choice.kinds[0]) == ("encoder", kind)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_catalogue_and_the_card_say_what_was_measured(name: str) -> None:
    entry = find_entry(name)
    assert entry is not None
    assert entry.params == _read(FOLDERS[name], "recipe.json")["num_parameters"]
    figures = _read(FOLDERS[name], "evaluation.json")
    key = "accuracy" if name == "sentiment" else "nearest_is_same"
    assert {one.texts: one.value for one in entry.measured} == {
        on: round(found[key], 2) for on, found in figures.items()
    }
    card = (FOLDERS[name] / "README.md").read_text("utf-8")
    assert all(f"{found[key]:.1%}" in card for found in figures.values())


@pytest.mark.data
def test_the_figures_are_true_of_the_real_texts(test_data: Path) -> None:
    """Of every tenth text, within what so few can tell."""
    text = tokenizer.make()
    model: Any = BertForSequenceClassification.from_pretrained(
        paths.SENTIMENT, dtype=torch.float32
    ).eval()
    told = _read(paths.SENTIMENT, "evaluation.json")
    for on, rows in (
        ("rt-polarity", evaluate.rt_polarity(test_data)),
        ("ChnSentiCorp", evaluate.chnsenticorp(test_data)),
    ):
        assert len(rows) == told[on]["num_texts"]
        found = evaluate.sentiment(model, text, rows[::10])
        assert found["accuracy"] == pytest.approx(told[on]["accuracy"], abs=0.05)
        assert found["balanced_accuracy"] > 0.55


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful, moving film.", "positive"),
        ("Dull, predictable and far too long.", "negative"),
        ("酒店很干净，服务热情。", "positive"),
        ("房间太脏，服务态度恶劣。", "negative"),
        ("not good at all", "negative"),
    ],
)
def test_it_answers_something_sensible(text: str, label: str) -> None:
    model: Any = BertForSequenceClassification.from_pretrained(
        paths.SENTIMENT, dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        logits = model(**train.encode(tokenizer.make(), [text])).logits
    assert model.config.id2label[int(logits.argmax())] == label


SAME = [
    ("My parcel has not arrived yet.", "我的包裹还没有收到"),
    ("I forgot my password.", "我忘了密码"),
    ("How much is the fee for a transfer?", "转账要多少手续费"),
    ("When will the refund come?", "什么时候退款"),
    ("The battery of this laptop is bad.", "这个笔记本的电池很差"),
    ("Which actor is in this film?", "这部电影有哪些演员"),
    ("The room was noisy at night.", "晚上房间很吵"),
    ("The fruit is not fresh.", "水果不新鲜"),
    ("Where is the train station?", "火车站在哪里"),
    ("The doctor gave the patient medicine.", "医生给病人开了药"),
    ("The weather is cold and it will snow.", "天气很冷，要下雪了"),
    ("The teacher likes his students.", "老师喜欢他的学生"),
    ("Our football team won the game.", "我们的足球队赢了比赛"),
    ("The police arrested the thief.", "警察抓住了小偷"),
    ("The author wrote a long novel.", "作者写了一本很长的小说"),
    ("A dog is in the garden.", "花园里有一只狗"),
]
"""Written by hand after the lists, for this test alone."""


def test_translations_are_found_among_others() -> None:
    model: Any = BertModel.from_pretrained(
        paths.EMBEDDING, dtype=torch.float32, add_pooling_layer=False
    ).eval()
    found = evaluate.across(model, tokenizer.make(), SAME)
    assert found["nearest_is_same"] >= 0.75
    assert found["nearest_is_same"] > found["tf_idf"] + 0.5


def test_what_means_the_same_is_nearer() -> None:
    model: Any = BertModel.from_pretrained(
        paths.EMBEDDING, dtype=torch.float32, add_pooling_layer=False
    ).eval()
    texts = [
        "My bank card was stolen.",
        "a thief took my debit card",
        "银行卡被偷了",
        "Is breakfast included in the room price?",
        "早餐包含在房间价格里吗",
    ]
    with torch.inference_mode():
        vectors = train.embed(model, tokenizer.make(), texts)
    near = vectors @ vectors.T
    assert near[0, 1] > near[0, 3]
    assert near[0, 2] > near[0, 4]
    assert near[3, 4] > near[3, 2]
