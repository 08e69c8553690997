"""Texts to rows: windows, cuts, refusals, and what is wrong with which item."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tokenizers import Tokenizer

from llmos.abi.inference import PrepareItem, TextPrompt
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.payload import Item
from llmos.drivers.encoder.prepare import make
from llmos.drivers.encoder.texts import CHARS_PER_TOKEN, Encoded, TextEncoder, Wanted
from llmos.errors import InvalidRequest, ModelRejected, PayloadTooLarge
from tests.contract.encoder.conftest import MakeFolder
from tests.unit.drivers.encoder.folders import PIECES, SIZES, bert_tokenizer, prepared

LONG = " ".join(["cat"] * 200)


@pytest.fixture
def folder(folder_of: MakeFolder) -> Path:
    return folder_of("vectors")


def _items(folder: Path, kind: str, items: list[Any], **how: Any) -> list[Item]:
    return payload.decode(
        prepared(folder, kind, items, how.pop("params", None), **how).payload
    ).items


def _ids(one: Item) -> list[list[int]]:
    return [array("i", row.tokens).tolist() for row in one.rows]


def test_a_long_text_is_read_in_windows_that_cover_it(folder: Path) -> None:
    (one,) = _items(folder, "embeddings", [LONG])
    lengths = [row.length for row in one.rows]
    assert lengths == [64, 64, 64, 16]  # 62 of the text in each, and what frames it
    assert sum(n - 2 for n in lengths) == 200
    assert one.note == "read in 4 windows of 64 tokens"
    (overlapping,) = _items(folder, "embeddings", [LONG], params={"stride": 10})
    assert sum(row.length - 2 for row in overlapping.rows) == 200 + 10 * (len(overlapping.rows) - 1)


def test_the_replica_may_read_less_than_the_model(folder: Path) -> None:
    (one,) = _items(folder, "embeddings", [LONG], context_length=32)
    assert max(row.length for row in one.rows) == 32


def test_it_is_cut_with_a_note_or_refused(folder: Path) -> None:
    cut, whole = _items(folder, "embeddings", [LONG, "cat"], params={"overflow": "truncate"})
    assert (len(cut.rows), cut.rows[0].length, cut.note) == (1, 64, "cut to 64 tokens")
    assert (whole.note, whole.error) == ("", None)
    refused, taken = _items(folder, "embeddings", [LONG, "cat"], params={"overflow": "refuse"})
    assert refused.error is not None
    assert refused.error.code == "context_length_exceeded"
    assert "202 tokens, and the model reads 64" in refused.error.message
    assert taken.error is None


def test_a_query_is_never_cut(folder_of: MakeFolder) -> None:
    folder = folder_of("score")
    short, long = _items(
        folder, "rerank", [{"query": "who", "text": LONG}, {"query": LONG, "text": "who"}]
    )
    assert _ids(short)[0][:3] == [2, PIECES.index("who"), 3]
    assert long.error is not None
    assert long.error.code == "context_length_exceeded"


def test_token_ids_are_taken_as_they_are(folder: Path) -> None:
    known, windows, empty, wrong, not_ids = _items(
        folder, "embeddings", [[5, 6], [5] * 100, [], [len(PIECES)], [True]]
    )
    assert _ids(known) == [[5, 6]]
    assert [len(ids) for ids in _ids(windows)] == [64, 36]
    for one in (empty, wrong, not_ids):
        assert one.error is not None
        assert one.error.code == "invalid_request"


def test_what_it_costs_is_every_token(folder: Path) -> None:
    assert prepared(folder, "embeddings", ["cat", LONG]).num_tokens == 3 + 64 * 3 + 16
    assert prepared(folder, "embeddings", [3]).num_tokens == 1


@pytest.mark.parametrize(
    ("kind", "params", "match"),
    [
        ("embeddings", {"poolin": "mean"}, "poolin"),
        ("embeddings", {"dimensions": 0}, "dimensions"),
        ("embeddings", {"overflow": "drop"}, "overflow"),
        ("embeddings", {"stride": "3"}, "stride"),
        ("fill-mask", {"overflow": "window"}, "windows"),
        ("fill-mask", {"targets": [" "]}, "vocabulary"),
        ("zero-shot-classification", {}, "candidate_labels"),
        ("zero-shot-classification", {"candidate_labels": []}, "candidate_labels"),
        ("zero-shot-classification", {"candidate_labels": ["a"] * 257}, "candidate_labels"),
        (
            "zero-shot-classification",
            {"candidate_labels": ["a"], "hypothesis_template": "no gap"},
            "no {}",
        ),
    ],
)
def test_bad_parameters_refuse_the_request(
    folder: Path, kind: str, params: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        prepared(folder, kind, ["cat [MASK]"], params)


def test_what_is_no_list_of_items_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="no items"):
        prepared(folder, "embeddings", [])
    item = PrepareItem("req_x", "", str(folder), TextPrompt("cat"), 8)
    with pytest.raises(InvalidRequest, match="does not generate"):
        make(str(folder)).prepare(item)


def test_a_gap_that_was_cut_away_is_told(folder_of: MakeFolder) -> None:
    kept, lost, none = _items(
        folder_of("gaps"), "fill-mask", ["[MASK] " + LONG, LONG + " [MASK]", "cat"]
    )
    assert kept.about["gaps"] == [1]
    assert lost.error is not None
    assert "cut to 64 tokens" in lost.error.message
    assert none.error is not None


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="tokenizer"):
        prepared(tmp_path, "embeddings", ["cat"])


@pytest.mark.parametrize(
    ("config", "most", "room"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, 0, 64),
        ({"model_type": "bert", "max_position_embeddings": 64}, 32, 32),
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 0, 64),
        ({"model_type": "t5"}, 48, 48),
        ({"model_type": "t5"}, 0, 512),
    ],
)
def test_how_much_a_model_reads(
    tmp_path: Path, config: dict[str, Any], most: int, room: int
) -> None:
    import json

    bert_tokenizer(tmp_path, most)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (one,) = _items(tmp_path, "embeddings", ["cat " * 600], params={"overflow": "truncate"})
    assert one.rows[0].length == room
    assert SIZES["vocab_size"] == len(PIECES)


def _limit(monkeypatch: pytest.MonkeyPatch, **bounds: int) -> None:
    limits = msgspec.structs.replace(LIMITS, **bounds)
    for module in ("rows", "texts", "prepare"):
        monkeypatch.setattr(f"llmos.drivers.encoder.{module}.LIMITS", limits)


@pytest.mark.parametrize(
    ("bounds", "kind", "params"),
    [
        ({"request_chars": 100}, "embeddings", {}),
        ({"request_chars": 100}, "embeddings", {"overflow": "truncate"}),
        ({"num_rows": 3}, "embeddings", {}),
        ({"payload_bytes": 1000}, "embeddings", {}),
        ({"request_chars": 1000}, "zero-shot-classification", {"candidate_labels": ["a", "b"]}),
        ({"num_rows": 3}, "zero-shot-classification", {"candidate_labels": ["a", "b"]}),
    ],
)
def test_inputs_are_bounded_together(
    folder_of: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    bounds: dict[str, int],
    kind: str,
    params: dict[str, Any],
) -> None:
    """One worker prepares for everybody, and one message carries what it makes."""
    folder = folder_of("vectors" if kind == "embeddings" else "entailment")
    assert len(_items(folder, kind, [LONG, LONG], params=params)) == 2
    _limit(monkeypatch, **bounds)
    with pytest.raises(PayloadTooLarge) as refusal:
        _items(folder, kind, [LONG, LONG], params=params)
    assert refusal.value.param == "inputs"


def test_a_text_that_is_far_too_long_fails_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit(monkeypatch, text_chars=100)
    long, short = _items(folder, "embeddings", [LONG, "cat"])
    assert long.error is not None
    assert long.error.code == "payload_too_large"
    assert short.error is None


@pytest.mark.parametrize("start", ["", " " * 10_000])
def test_of_a_text_that_is_cut_only_its_beginning_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    """Unless hardly any tokens come of that."""
    text = start + "cat who " * 3000
    cut = {"overflow": "truncate"}
    (soon,) = _items(folder, "embeddings", [text], params=cut)
    read: list[int] = []
    batch = Tokenizer.encode_batch

    class Counted:
        def __init__(self, inner: Tokenizer) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def encode_batch(self, texts: list[str]) -> Any:
            read.extend(map(len, texts))
            return batch(self._inner, texts)

        def encode(self, text: str) -> Any:
            read.append(len(text))
            return self._inner.encode(text)

    settings = json.loads((folder / "config.json").read_text())
    encoder = TextEncoder(folder, settings)
    encoder.tokenizer = Counted(encoder.tokenizer)  # type: ignore[assignment]
    (made,) = encoder.encode([text], 64, Wanted("truncate", 0))
    assert isinstance(made, Encoded)
    assert read == [64 * CHARS_PER_TOKEN, *([len(text)] if start else [])]
    monkeypatch.setattr("llmos.drivers.encoder.texts.CHARS_PER_TOKEN", len(text))
    (whole,) = _items(folder, "embeddings", [text], params=cut)
    assert soon == whole
    assert soon.rows == made.rows
    assert soon.note == "cut to 64 tokens"
