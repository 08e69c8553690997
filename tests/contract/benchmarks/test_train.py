"""What `bench_train` keeps of a result, and whether its plain GPT is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import bench_train, harness
from benchmarks.train import baselines, causal, plain, pretrained, texts
from llmos.programs.task.conll import Sentence, read_conll
from llmos.programs.train.recipe import parse


def result(*figures: str) -> harness.Result:
    made = harness.Result("train", "make bench-train", machine="m", commit="c")
    made.rows += [harness.Row(figure, float(len(figure)), "s") for figure in figures]
    return made


def no_plot(made: harness.Result, path: Path) -> None:
    pass


def test_parts_that_are_not_run_anew_keep_their_rows_and_notes(tmp_path: Path) -> None:
    before = result("LoRA, old", "p95 old", "rt-polarity: old", "the same: old")
    before.notes += ["memory: old", "traffic: old"]
    before.write(tmp_path, no_plot)
    after = result("p95 new")
    after.notes.append("traffic: new")
    bench_train.keep_others(after, ["traffic"], tmp_path)
    figures = [row.figure for row in after.rows]
    assert figures == ["rt-polarity: old", "the same: old", "p95 new", "LoRA, old"]
    assert after.notes == ["traffic: new", "memory: old"]


def test_the_plain_gpt_has_the_weights_of_gpt_2() -> None:
    sizes = causal.sizes(10)
    hidden = sizes.hidden_size
    number = sum(weight.numel() for weight in plain.Gpt(sizes).parameters())
    layer = 12 * hidden * hidden + 13 * hidden
    tables = (sizes.vocab_size + sizes.max_length) * hidden
    assert number == tables + sizes.num_layers * layer + 2 * hidden


def test_the_plain_gpt_does_not_look_ahead() -> None:
    sizes = plain.Sizes(50, 16, 2, 2, 8, 2, 10, 1e-3, 1, 1)
    torch.manual_seed(0)
    layer = plain.Layer(sizes)
    x = torch.randn(1, 8, 16)
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = layer(x), layer(changed)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_its_rate_warms_up_and_falls_to_nothing() -> None:
    sizes = causal.sizes(100)
    rates = [plain.rate_at(step, sizes) for step in range(101)]
    assert rates[0] == 0.0
    assert max(rates) == rates[6] == 1.0
    assert rates[100] == 0.0


@pytest.mark.parametrize(
    ("token", "seen"), [("McDonald's", "XxXx'x"), ("A-99", "X-9"), ("...", "."), ("", "")]
)
def test_the_shape_of_a_token(token: str, seen: str) -> None:
    assert baselines.shape(token) == seen


def test_a_token_is_told_by_its_neighbours_too() -> None:
    last = list(baselines.features(["In", "New", "York"]))[-1]
    assert last["word"] == "york"
    assert (last["word -1"], last["word -2"], last["word 1"]) == ("new", "in", "")
    assert (last["first 2"], last["last 3"], last["shape -1"]) == ("Yo", "ork", "Xx")


def test_the_tagger_beside_ours_finds_what_it_has_seen() -> None:
    learned = [Sentence(["in", place, "."], ["O", "B-LOC", "O"]) for place in ("Rome", "Bern")]
    assert baselines.tagged(learned * 5, learned) == 1.0


def test_sentences_are_written_as_they_are_read(tmp_path: Path) -> None:
    rows = [Sentence(["EU", "says"], ["B-ORG", "O"]), Sentence(["No"], ["O"])]
    files = texts.write(tmp_path, texts.TAGGED, rows, rows[:1])
    assert list(read_conll(files["train"])) == rows
    assert list(read_conll(files["test"])) == rows[:1]


def test_its_recipes_are_some() -> None:
    for name in texts.SETS:
        parse(texts.recipe(name) | {"data": {"train": "a.csv"}})
    for name in ("encoder", *pretrained.TUNED):
        base = None if name == "encoder" else "a:1"
        assert parse(pretrained.example(name, base)).training.threads == 1


def test_every_row_is_some_parts() -> None:
    for figure, part in (
        ("pretrained, LoRA: right", "pretrained"),
        ("memory, full: at most", "memory"),
        ("traffic: what it learns", "traffic"),
        ("WNUT17: F1", "texts"),
    ):
        assert bench_train.part_of(figure) == part
