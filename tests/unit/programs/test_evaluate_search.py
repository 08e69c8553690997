"""Retrieval by vectors: what is one, what is nearest, and that neither takes much memory."""

from __future__ import annotations

import json
import tracemalloc
from array import array
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from llmos.abi.evals import EvalKind, EvalSpec, read_eval
from llmos.abi.events import ItemOutput
from llmos.abi.inference import ItemsPrompt
from llmos.abi.program import Answer, Generate
from llmos.errors import AnswerRejected, InvalidRequest
from llmos.programs.evaluate import corpus, search
from llmos.programs.evaluate.corpus import Corpus
from llmos.programs.evaluate.program import EvaluateProgram
from tests.unit.programs.test_evaluate import (
    CORPUS_LINES,
    SEARCHES,
    as_words,
    context,
    run,
    searching,
)

Odd = dict[str, bytes]


def odd(vectors: Odd) -> Any:
    """As words, but for some texts."""

    def answer(request: Generate) -> Answer:
        made = as_words(request)
        assert isinstance(request.prompt, ItemsPrompt)
        outputs = [
            ItemOutput(one.index, data=vectors.get(text, one.data))
            for one, text in zip(made.outputs, request.prompt.items, strict=True)
        ]
        return msgspec.structs.replace(made, outputs=outputs)

    return answer


def floats(*numbers: float) -> bytes:
    return array("f", numbers).tobytes()


NO_VECTORS = [
    (floats(1, float("nan"), 0), "not finite"),
    (floats(1, float("inf"), 0), "not finite"),
    (floats(1, 2, 3)[:-1], "11 bytes"),
]


@pytest.mark.parametrize(("data", "told"), NO_VECTORS)
def test_what_is_no_vector_ranks_nothing(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(AnswerRejected, match=f"document 'd4': .*{told}"):
        EvaluateProgram().run(searching(tmp_path, odd({"a stone": data})))
    ctx = searching(tmp_path, odd({"cat": data}))
    outputs = EvaluateProgram().run(ctx)
    assert (outputs["rejected"], outputs["examples"]) == (1, 3)
    lines = [json.loads(line) for line in ctx.lines("examples")]
    assert [line["said"][:1] for line in lines] == [[], ["d1"], ["d4"]]


@pytest.mark.parametrize(
    ("data", "told"), [*NO_VECTORS, (floats(1, 2), "several sizes"), (b"", "no vector")]
)
def test_nor_among_an_examples_own_documents(tmp_path: Path, data: bytes, told: str) -> None:
    row = {"query": "cat", "documents": ["a dog", "the cat"], "relevant": [1]}
    outputs, ctx = run(
        tmp_path,
        {"kind": "retrieve"},
        json.dumps(row),
        odd({"a dog": data}),
        kinds="embeddings",
    )
    assert (outputs["rejected"], outputs["scores"]["mrr"]["value"]) == (1, 0.0)
    assert told in ctx.lines("model_errors")[0].decode()


def test_large_numbers_have_a_direction(tmp_path: Path) -> None:
    """Whose squares float32 does not hold."""
    ctx = searching(tmp_path, odd({"cat": floats(3e38, 0, 3e37), "a stone": floats(0, 0, 3e38)}))
    EvaluateProgram().run(ctx)
    lines = [json.loads(line) for line in ctx.lines("examples")]
    assert lines[0]["said"] == ["d2", "d3", "d4", "d1"]


@pytest.mark.parametrize(
    ("relevant", "told"),
    [
        ([["d1", 2]], r"there is \['d1', 2\]"),
        ([True], "there is True"),
        ([1.5], "there is 1.5"),
        ({"1": -1}, "the gain of '1' is -1"),
        ({"1": "inf"}, "the gain of '1' is 'inf'"),
        ({"1": "nan"}, "the gain of '1' is 'nan'"),
    ],
)
def test_what_is_no_gain(tmp_path: Path, relevant: Any, told: str) -> None:
    row = {"query": "dog", "documents": ["a", "b"], "relevant": relevant}
    data = json.dumps({**row, "relevant": [0]}) + "\n" + json.dumps(row)
    whole = searching(tmp_path, searches=[*SEARCHES[:1], row])
    own = context(tmp_path, {"kind": "retrieve"}, data, as_words, kinds="embeddings")
    for ctx in (whole, own):
        with pytest.raises(InvalidRequest, match=f"example 2: .*{told}") as raised:
            EvaluateProgram().run(ctx)
        assert raised.value.param == "columns.relevant"
        assert not ctx.num_asked


def test_a_document_may_be_named_by_a_number(tmp_path: Path) -> None:
    lines = [{**one, "_id": number} for number, one in enumerate(CORPUS_LINES)]
    ctx = searching(tmp_path, corpus=lines, searches=[{"query": "cat", "relevant": [1, "2"]}])
    assert EvaluateProgram().run(ctx)["scores"]["recall@3"]["value"] == 1.0


def test_prefixes_stand_before_what_is_asked(tmp_path: Path) -> None:
    seen: set[str] = set()

    def answer(request: Generate) -> Answer:
        assert isinstance(request.prompt, ItemsPrompt)
        seen.update(request.prompt.items)
        return as_words(request)

    prefixes = {"query_prefix": "query: ", "document_prefix": "passage: "}
    EvaluateProgram().run(searching(tmp_path, answer, spec=prefixes))
    documents = {f"passage: {one['text']}" for one in CORPUS_LINES}
    assert seen == documents | {f"query: {one['query']}" for one in SEARCHES}
    seen.clear()
    row = json.dumps({"query": "cat", "documents": ["a dog", "the cat"], "relevant": [1]})
    spec = {"kind": "retrieve", **prefixes}
    run(tmp_path, spec, row, answer, kinds="embeddings")
    assert seen == {"query: cat", "passage: a dog", "passage: the cat"}
    with pytest.raises(InvalidRequest, match="models that make vectors"):
        run(tmp_path, spec, row, answer, kinds="rerank")
    with pytest.raises(InvalidRequest, match="prefixes are for retrieve"):
        read_eval({"kind": "classify", "model": "m", "query_prefix": "query: "})


# the search itself


def encoded(rows: Any) -> Iterator[tuple[int, str]]:
    return ((number, b64encode(row).decode()) for number, row in enumerate(rows))


def test_it_finds_what_comparing_all_at_once_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal ones among them, in blocks whose ends are in the middle of everything."""
    monkeypatch.setattr(search, "MAX_BLOCK", 7)
    monkeypatch.setattr(search, "QUERIES_AT_ONCE", 4)
    monkeypatch.setattr(search, "DEPTH", 20)
    draws = np.random.default_rng(3)
    documents = draws.integers(-1, 2, (60, 4)).astype("<f4")
    queries = draws.integers(-1, 2, (10, 4)).astype("<f4")
    stored = [
        search.store(encoded(rows), tmp_path / name)
        for rows, name in ((queries, "queries"), (documents, "documents"))
    ]
    unit = [search.of_length_1(rows).astype("<f4") for rows in (queries, documents)]
    cosines = unit[0] @ unit[1].T
    found = dict(search.nearest(*stored))
    assert list(found) == list(range(10))
    for number, places in found.items():
        assert places.tolist() == np.argsort(-cosines[number], kind="stable")[:20].tolist()


def test_sizes_that_differ(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="several sizes"):
        search.store(encoded([np.ones(3, "<f4"), np.ones(4, "<f4")]), tmp_path / "a")
    three = search.store(encoded(np.ones((2, 3), "<f4")), tmp_path / "a")
    four = search.store(encoded(np.ones((2, 4), "<f4")), tmp_path / "b")
    with pytest.raises(InvalidRequest, match="two sizes"):
        list(search.nearest(three, four))
    nothing = search.store(encoded([]), tmp_path / "c")
    assert not list(search.nearest(nothing, four))


def test_vectors_are_never_in_memory_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 MB a block at a time, and of each query the best."""
    monkeypatch.setattr(search, "BLOCK_BYTES", 128 << 10)
    monkeypatch.setattr(search, "QUERIES_AT_ONCE", 8)
    monkeypatch.setattr(search, "DEPTH", 50)
    row_H = np.random.default_rng(1).standard_normal(1024).astype("<f4")
    vectors = ((number, b64encode(np.roll(row_H, number)).decode()) for number in range(2000))
    tracemalloc.start()
    try:
        documents = search.store(vectors, tmp_path / "documents")
        queries = search.store(
            ((n, b64encode(np.roll(row_H, n)).decode()) for n in range(16)), tmp_path / "queries"
        )
        assert documents.path.stat().st_size == 2000 * 4096
        assert [int(places[0]) for _, places in search.nearest(queries, documents)] == [*range(16)]
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def write_corpus(path: Path, number: int, text: str) -> Path:
    path.write_text("".join(f'{{"id": {n}, "text": "{text}"}}\n' for n in range(number)))
    return path


SPEC = EvalSpec(EvalKind.RETRIEVE, "m")


def test_texts_of_a_corpus_are_read_again(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus", 500, "word " * 2000)
    tracemalloc.start()
    try:
        found = Corpus(SPEC, path)
        assert sum(len(row.values["text"]) for row in found.rows()) == 500 * 10_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("MAX_DOCUMENTS", "over 9 documents"),
        ("MAX_NAMES_BYTES", "over 9 bytes of names"),
    ],
)
def test_a_corpus_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, told: str
) -> None:
    monkeypatch.setattr(corpus, limit, 9)
    assert len(Corpus(SPEC, write_corpus(tmp_path / "corpus", 9, "word"))) == 9
    with pytest.raises(InvalidRequest, match=told):
        Corpus(SPEC, write_corpus(tmp_path / "corpus", 10, "word"))


def test_so_are_names(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    path.write_text(json.dumps({"id": "d" * 513, "text": "word"}))
    with pytest.raises(InvalidRequest, match="document 1: its name has over 512 characters"):
        Corpus(SPEC, path)
