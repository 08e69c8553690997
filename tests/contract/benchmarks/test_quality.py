"""Texts, scores and rows of `bench_quality`, on a tiny model and by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.engine.plots import Series
from benchmarks.harness import Result, Row
from benchmarks.quality import scores, speed, texts
from tests.unit.drivers.tiny import make_model, random_prompt

SEQUENCE = texts.Sequence([1, *random_prompt(3, 149)], list(range(1, 150)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("model")
    make_model(made)
    yield made
    torch.set_num_threads(num_threads)


def test_chunks_of_the_kernels_agree_with_transformers(folder: Path) -> None:
    """150 tokens are three chunks, the last of which is not full."""
    runner = scores.open_runner(folder, "float32")
    logits = {"float32": scores.fused(runner.engine)}
    text = texts.Text("t", [SEQUENCE, texts.Sequence(SEQUENCE.tokens, [7, 100])])
    whole, some = scores.of_text(text, logits, scores.reference(folder))["float32"]
    runner.close()
    assert (whole.count, some.count, whole.agree, some.agree) == (149, 2, 149, 2)
    assert 0 < whole.off <= 1e-4
    assert whole.kl == 0.0
    assert some.nll < whole.nll


def test_fewer_bits_are_further_off(folder: Path) -> None:
    dtypes = ("float32", "float16", "int8", "int4")
    runners = [scores.open_runner(folder, dtype) for dtype in dtypes]
    logits = {d: scores.fused(r.engine) for d, r in zip(dtypes, runners, strict=True)}
    found = scores.of_text(texts.Text("t", [SEQUENCE]), logits, scores.reference(folder))
    for runner in runners:
        runner.close()
    divergences = [found[dtype][0].kl for dtype in dtypes]
    assert divergences == sorted(divergences)
    assert divergences[0] == 0.0 < divergences[1]


def test_a_score_by_hand() -> None:
    sequence = texts.Sequence([0, 1, 0], [1, 2])
    base_TV = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    found_TV = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    found = scores.score(sequence, found_TV, base_TV, base_TV)
    assert found.count == 2
    assert found.nll == pytest.approx(math.log(2) - math.log(3 / 4))
    assert found.agree == 1
    assert found.kl == pytest.approx(0.25 * math.log(1 / 3) + 0.75 * math.log(3))
    assert math.isnan(found.off)  # a row of zeros has no largest logit to compare with


def test_rows_have_their_interval_over_sequences() -> None:
    base = [scores.Score(10, 10.0, 10, 0.0, 1e-6), scores.Score(30, 60.0, 30, 0.0, 2e-6)]
    ours = [replace(base[0], nll=11.0, agree=9, kl=1.0), replace(base[1], agree=30, off=0.5)]
    perplexity, same, divergence, off = scores.rows("m", "int8", ours, base)
    assert (perplexity.value, perplexity.peer_value) == (
        pytest.approx(math.exp(71 / 40), rel=1e-3),
        pytest.approx(math.exp(70 / 40), rel=1e-3),
    )
    assert perplexity.ratio == pytest.approx(math.exp(1 / 40), rel=1e-3)
    assert (perplexity.low, perplexity.high) == (1.0, pytest.approx(math.exp(1 / 10), rel=1e-3))
    assert (same.value, divergence.value, off.value) == (0.975, 0.025, 0.5)
    alone, *_ = scores.rows("m", "int8", ours[:1], base[:1])
    assert (alone.low, alone.high) == (None, None)
    assert [row.unit for row in scores.rows("m", "float32", base, base)] == ["1", "1"]


def test_float32_must_find_what_others_found() -> None:
    text = texts.Text("t", [], nll=2.0)
    scores.check(text, [scores.Score(10, 20.0005, 0, 0, 0)])
    with pytest.raises(RuntimeError, match=r"t: 2\.010000 nats a token, others found 2\.0"):
        scores.check(text, [scores.Score(10, 20.1, 0, 0, 0)])


def test_the_pilot_is_scored_on_the_assistants_words() -> None:
    (text,) = texts.of_pilot(20)
    (again,) = texts.of_pilot(20)
    assert text == again
    for sequence in text.sequences:
        assert sequence.scored
        assert all(0 < at < len(sequence.tokens) for at in sequence.scored)
        assert len(sequence.scored) < len(sequence.tokens) - 5  # the user's are not


def test_windows_of_real_text(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_TEST_DATA", str(test_data))
    story, wikitext, shakespeare = texts.of_stories(test_data / "models" / "stories260k", 3)
    assert len(story.sequences[0].tokens) == 201
    assert (wikitext.nll, shakespeare.nll) == (None, 3.9000329907235534)
    for text in (wikitext, shakespeare):
        assert [len(s.tokens) for s in text.sequences] == [512] * 3
        assert {s.tokens[0] for s in text.sequences} == {1}
        assert len({tuple(s.tokens) for s in text.sequences}) == 3


def test_speed_rows_say_what_is_slower(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "WIDTHS", (1, 2))
    monkeypatch.setattr(speed, "TURN_STEPS", 2)
    result = Result("quality", "x")
    series: Series = {}
    speed.rows("m", folder, result, 2, series)
    assert len(result.rows) == 2 * len(scores.DTYPES)
    assert all(row.value > 0 for row in result.rows)
    assert {row.figure: row.peer for row in result.rows}["m, int4, 2 streams: decode"] == "bfloat16"
    assert set(series["m: tokens/s by streams"]) == set(scores.DTYPES)
    slow = Row("f", 1.0, "tokens/s", "bfloat16", 2.0, 0.5, 0.4, 0.6)
    (said,) = speed._verdict(slow, "m", "int4", 8, 1000)
    assert said.startswith(
        "m: int4 is slower than bfloat16 at 8 streams (0.5, at most 0.6), warned"
    )
    assert not list(speed._verdict(replace(slow, high=1.01), "m", "int4", 8, 1000))
