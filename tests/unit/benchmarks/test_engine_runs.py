"""Figures read off runs, rows beside peers, the memory bound, the scaled trace: by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from benchmarks.engine import bandwidth, runs, sides, trace
from benchmarks.engine.peers import gguf_weights
from benchmarks.engine.sides import Prompts, Side
from benchmarks.sched.arrivals import TraceEntry


def test_decode_counts_only_while_all_streams_decode() -> None:
    # together from 2.0 to 4.0: 3.0, 4.0 of the first, 2.5, 3.0, 4.0 of the second
    token_s = [[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.5, 3.0, 4.0]]
    assert runs.decode_rate(token_s) == 5 / 2


def test_decode_of_streams_that_never_meet() -> None:
    with pytest.raises(ValueError, match="never decode together"):
        runs.decode_rate([[1.0, 2.0], [3.0, 4.0]])


def test_prefill_ends_with_the_last_first_token() -> None:
    assert runs.prefill_rate([[0.5, 9.0], [2.0, 9.0]], 128) == 128


def test_first_tokens_count_from_when_they_were_due() -> None:
    token_s = [[1.0], [3.0], [6.0]]
    assert runs.ttft(token_s) == 3.0
    assert runs.ttft(token_s, 1.0, [0.0, 2.5, 1.0]) == 5.0


def test_gaps_are_within_a_stream() -> None:
    assert runs.inter_token([[0.0, 1.0, 1.5], [9.0, 9.25]]) == 1.0
    assert runs.inter_token([[0.0, 1.0, 1.5], [9.0, 9.25]], 0.5) == 0.5


def test_a_run_with_a_token_too_few_is_refused() -> None:
    runs.check([[1.0, 2.0]], [2])
    with pytest.raises(ValueError, match="got"):
        runs.check([[1.0]], [2])


def _side(title: str, *values: float) -> Side:
    return Side(title, lambda requests: [], 32, {"f": list(values)})


def test_rows_mark_the_best_peer_by_the_figures_direction() -> None:
    all_sides = [_side("ours", 30.0, 60.0), _side("slow", 10.0, 20.0), _side("quick", 20.0, 40.0)]
    rows = sides.rows(all_sides, "f", "tokens/s", lower_is_better=False)
    assert [(row.peer, row.ratio) for row in rows] == [("quick (best)", 1.5), ("slow", 3.0)]
    rows = sides.rows(all_sides, "f", "s", lower_is_better=True)
    assert [(row.peer, row.ratio) for row in rows] == [("slow (best)", 3.0), ("quick", 1.5)]


def test_rows_without_peers_or_without_ours() -> None:
    (row,) = sides.rows([_side("ours", 3.0)], "f", "s", lower_is_better=True)
    assert (row.figure, row.value, row.peer) == ("f", 3.0, None)
    (row,) = sides.rows([_side("theirs", 3.0)], "f", "s", lower_is_better=True)
    assert (row.figure, row.value, row.peer) == ("f, theirs alone", 3.0, None)


def test_no_prompt_twice() -> None:
    prompts = Prompts(1000)
    first, second = prompts.requests(2, 16, 4), prompts.requests(1, 16, 4)
    drawn = [tuple(request.prompt) for request in first + second]
    assert len(set(drawn)) == 3
    assert {len(prompt) for prompt in drawn} == {16}


def _weights(folder: Path, shapes: dict[str, list[int]], tied: bool) -> None:
    header = {name: {"dtype": "BF16", "shape": shape} for name, shape in shapes.items()}
    data = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))


def test_a_tied_head_is_read_in_whole_and_a_lookup_is_not(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": [100, 8], "w": [8, 4], "norm": [8]}
    _weights(tmp_path, shapes, tied=True)
    assert bandwidth.weights_per_token(tmp_path) == 832
    _weights(tmp_path, {**shapes, "lm_head.weight": [100, 8]}, tied=False)
    assert bandwidth.weights_per_token(tmp_path) == 832


@pytest.mark.parametrize(("precision", "rate"), [("bf16", 50.0), ("int8", 100.0), ("int4", 200.0)])
def test_bound_of_one_stream(precision: str, rate: float) -> None:
    assert bandwidth.bound(200_000_000, precision, 20e9) == rate


def test_a_trace_is_stretched_to_a_rate_and_cut_to_fit() -> None:
    entries = [TraceEntry(10.0, 100, 5), TraceEntry(10.5, 90_000, 9_000), TraceEntry(12.0, 7, 0)]
    made = trace.scaled(entries, 3, rate=0.5)
    assert [entry.due_s for entry in made] == [0.0, 1.0, 4.0]
    assert made[0] == TraceEntry(0.0, 100, 5)
    assert made[1].prompt_tokens + made[1].output_tokens == trace.CONTEXT_TOKENS
    assert made[2].output_tokens == 2  # one token has no time between tokens
    assert len(trace.scaled(entries, 2, rate=1.0)) == 2


def test_heads_rows_are_paired_for_llama_cpp() -> None:
    import numpy

    rows = numpy.arange(8).reshape(8, 1)  # two heads of four rows: halves (0, 1) (2, 3)
    assert gguf_weights.interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_names_in_gguf() -> None:
    renamed = gguf_weights.renamed
    assert renamed("model.layers.3.self_attn.q_proj.bias") == "blk.3.attn_q.bias"
    assert renamed("model.layers.0.post_attention_layernorm.weight") == "blk.0.ffn_norm.weight"
    assert renamed("lm_head.weight") == "output.weight"
    with pytest.raises(KeyError):
        renamed("model.layers.0.self_attn.q_norm.weight")
    assert gguf_weights.rope_theta({"rope_theta": 5.0}) == 5.0
    assert gguf_weights.rope_theta({"rope_parameters": {"rope_theta": 7.0}}) == 7.0
