"""What is wrong is told at once, by its place; what goes wrong later leaves the last checkpoint."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import InvalidRequest, OutOfMemory, ProgramFailed
from llmos.programs.train.program import TrainProgram
from llmos.programs.train.trainer import ExamplesTrainer
from tests.contract.train.context import FakeContext, run
from tests.contract.train.data import TINY, recipe, sentences, sentiment, write_csv, write_jsonl

NAMES = ("text", "label")


@pytest.mark.parametrize(
    ("split", "rows", "names", "said"),
    [
        ("train", sentences(30), ("text", "kind"), "no column 'label'; there are 'text', 'kind'"),
        ("train", [("a", "x"), ("b", "")], NAMES, "row 2 has no 'label'"),
        ("train", [("a", "x"), ("b", "x")], NAMES, "every example has the label 'x'"),
        ("test", [("a film", "meh")], NAMES, "row 1 has the label 'meh'"),
        ("train", [(f"text {i}", f"id {i}") for i in range(60)], NAMES, "a column of labels"),
        ("train", [("a", "x", "y")], NAMES, "row 1: line 2 has 3 fields, not 2"),
        ("train", [], NAMES, "there are no examples"),
    ],
)
def test_data_that_teach_nothing(
    tmp_path: Path, split: str, rows: list[Any], names: tuple[str, ...], said: str
) -> None:
    files = sentiment(tmp_path / "data")
    files[split] = write_csv(tmp_path / "bad.csv", rows, names)
    with pytest.raises(InvalidRequest) as raised:
        run(tmp_path / "run", recipe(), files)
    assert said in raised.value.message
    assert raised.value.param


def test_bytes_that_are_no_parquet(tmp_path: Path) -> None:
    files = sentiment(tmp_path / "data")
    wanted = recipe(data={"train": "train.parquet"})
    with pytest.raises(InvalidRequest, match="no Parquet"):
        run(tmp_path / "run", wanted, files)


def test_a_format_that_nobody_names(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"data\.format"):
        run(tmp_path / "run", recipe(data={"train": "train.bin"}), sentiment(tmp_path / "data"))


def test_words_and_labels_that_are_not_as_many(tmp_path: Path) -> None:
    rows = [{"text": ["a", "b"], "label": ["O"]}]
    files = {"train": write_jsonl(tmp_path / "t.jsonl", rows)}
    wanted = {"name": "x", "objective": "tag", "data": {"train": "t.jsonl"}, "model": TINY}
    with pytest.raises(InvalidRequest, match="row 1 has 2 words and 1 labels"):
        run(tmp_path / "run", wanted, files)


def test_an_answer_that_its_text_does_not_hold(tmp_path: Path) -> None:
    rows = [{"text": "a b", "pair": "what?", "label": "c"}]
    files = {"train": write_jsonl(tmp_path / "t.jsonl", rows)}
    data = {"train": "t.jsonl", "pair": "pair"}
    wanted = {"name": "x", "objective": "qa", "data": data, "model": TINY}
    with pytest.raises(InvalidRequest, match="does not hold 'c'"):
        run(tmp_path / "run", wanted, files)


def test_a_loss_that_is_no_number_ends_it_and_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    files = sentiment(tmp_path / "data")
    wanted = recipe(
        training={"optimizer": "sgd", "learning_rate": 1e18, "clip": 0, "schedule": "constant"},
        watch={"checkpoint_s": 1e-6},
    )
    context = FakeContext(tmp_path / "run", wanted, files)
    with pytest.raises(ProgramFailed, match="last good checkpoint") as raised:
        TrainProgram().run(context)
    assert "learning_rate" in raised.value.message
    from llmos.programs.train import checkpoint

    for path in context.checkpoints:
        state = checkpoint.read(Path(path))
        assert all(bool(v.isfinite().all()) for v in state["model"].values())


def test_out_of_memory_at_the_third_step_says_what_needs_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = ExamplesTrainer.training_step

    def fails(self: Any, *given: Any, **named: Any) -> Any:
        if self.state.global_step == 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return learn(self, *given, **named)

    monkeypatch.setattr(ExamplesTrainer, "training_step", fails)
    wanted = recipe(watch={"checkpoint_s": 1e-6})
    context = FakeContext(tmp_path / "run", wanted, sentiment(tmp_path / "data"))
    with pytest.raises(OutOfMemory, match=r"training\.batch_size"):
        TrainProgram().run(context)
    assert context.checkpoints


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmos.programs.train import checkpoint

    write, written = checkpoint.write, []

    def fills(path: Path, state: Any) -> None:
        if "optimizer" in state:
            written.append(path)
            if len(written) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, state)

    monkeypatch.setattr(checkpoint, "write", fills)
    files = sentiment(tmp_path / "data")
    wanted = recipe(watch={"checkpoint_s": 1e-6})
    context = FakeContext(tmp_path / "run", wanted, files)
    with pytest.raises(OSError, match="No space left"):
        TrainProgram().run(context)
    monkeypatch.setattr(checkpoint, "write", write)
    (kept,) = context.checkpoints
    later = FakeContext(tmp_path / "later", wanted, files, attempt=2, resumed_from=kept)
    whole, _ = run(tmp_path / "whole", wanted, files)
    assert TrainProgram().run(later)["weights"] == whole["weights"]


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    files = sentiment(tmp_path / "data")
    small, large = (
        run(tmp_path / str(size), recipe(model={"vocab_size": size}), files)[1].registered
        for size in (90, 160)
    )
    assert small is not None
    assert large is not None
    before, after = (json.loads((f / "config.json").read_text()) for f in (small, large))
    assert before["vocab_size"] < after["vocab_size"]
    shutil.copy(large / "tokenizer.json", small / "tokenizer.json")
    with pytest.raises(InvalidRequest, match="another model's"):
        run(tmp_path / "run", recipe(base="small:1"), files, {"base": small})
