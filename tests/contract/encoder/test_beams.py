"""Texts by beam search: token for token what `generate` finds with as many beams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmos.drivers.encoder.kinds import DECODER_FAMILIES
from llmos.errors import InvalidRequest
from tests.contract.encoder.written import KIND, TEXTS, generated
from tests.unit.drivers.encoder.folders import (
    infer,
    load,
    make_writer,
    outputs,
    prepared,
    work_item,
)
from tests.unit.drivers.tiny import drive


def _expected(folder: Path, family: str, **how: Any) -> list[tuple[str, int]]:
    return [generated(folder, family, text, **how) for text in TEXTS]


def _ours(folder: Path, **params: Any) -> list[tuple[str, int]]:
    made = infer(folder, KIND, TEXTS, params=params)
    assert [one.error for one in made] == [None] * len(TEXTS)
    return [(one.value["text"], one.value["num_tokens"]) for one in made]


@pytest.mark.parametrize("family", DECODER_FAMILIES)
def test_beams_find_what_generate_finds(family: str, tmp_path: Path) -> None:
    folder = make_writer(tmp_path, family, scale=3 if "T5" in family else 8)
    greedy = _ours(folder, max_new_tokens=12)
    for count in (2, 4):
        found = _ours(folder, max_new_tokens=12, num_beams=count)
        assert found == _expected(folder, family, max_new_tokens=12, num_beams=count)
    assert _ours(folder, max_new_tokens=12, num_beams=1) == greedy


RULES: list[dict[str, Any]] = [
    {"early_stopping": True, "length_penalty": 2.0},
    {"early_stopping": "never", "length_penalty": 0.5},
    {"length_penalty": -1.0, "no_repeat_ngram_size": 2},
    {"forced_bos_token_id": 9, "min_length": 4},
    {"forced_eos_token_id": 3, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("rules", RULES, ids="-".join)
def test_the_folders_rules_hold_for_beams(rules: dict[str, Any], tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "Bart", scale=3)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | rules))
    found = _ours(folder, max_new_tokens=9, num_beams=3)
    assert found == _expected(folder, "Bart", max_new_tokens=9, num_beams=3)


def test_requests_with_other_beams_share_no_group_and_one_may_be_ended(tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "T5", scale=3)
    alone = {
        n: [o.value for o in infer(folder, KIND, TEXTS, params={"num_beams": n})] for n in (1, 3)
    }
    driver = load(folder)
    items = [
        work_item(f"req_{n}", KIND, prepared(folder, KIND, TEXTS, {"num_beams": n})) for n in (1, 3)
    ]
    gone = work_item("req_gone", KIND, prepared(folder, KIND, TEXTS[:2], {"num_beams": 3}))
    for item in (*items, gone):
        driver.submit(item)
    driver.step()
    driver.step()
    driver.abort("req_gone", "the client left")
    events = drive(driver)
    for n in (1, 3):
        assert [one.value for one in outputs(events[f"req_{n}"])] == alone[n]


def test_beams_are_bounded(tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "T5", scale=3)
    for wrong in (0, 17, "2"):
        with pytest.raises(InvalidRequest, match="num_beams"):
            prepared(folder, KIND, TEXTS, {"num_beams": wrong})
