"""Equal weights give the answers of Transformers' pipelines; where 5.x has none, of the model.

Scores agree to 1e-5: rows are padded to other lengths, so sums are taken in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmos.abi.events import ItemOutput
from tests.contract.encoder.conftest import MakeFolder
from tests.unit.drivers.encoder.folders import infer

TEXTS = ["the cat sat on a mat.", "who lives in new york? " * 20, "it is good", "catty!"]
CLOSE = 1e-5


def _same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], *keys: str) -> None:
    assert [[one[k] for k in keys] for one in ours] == [[one[k] for k in keys] for one in theirs]
    assert [one["score"] for one in ours] == pytest.approx(
        [float(one["score"]) for one in theirs], abs=CLOSE
    )


def _values(outputs: list[ItemOutput]) -> list[Any]:
    assert all(output.error is None for output in outputs), outputs
    return [output.value for output in outputs]


@pytest.mark.parametrize("name", ["classes", "many", "score", "mean"])
def test_classes_of_texts(folder_of: MakeFolder, name: str) -> None:
    folder = folder_of(name)
    pipe = transformers.pipeline("text-classification", str(folder))
    theirs = pipe(TEXTS, top_k=None, truncation=True, max_length=64)
    ours = _values(infer(folder, "text-classification", TEXTS, params={"top_k": None}))
    for mine, other in zip(ours, theirs, strict=True):
        _same(mine, other, "label")


def test_classes_of_pairs(folder_of: MakeFolder) -> None:
    folder = folder_of("classes")
    pairs = [{"text": "the cat", "text_pair": "sat on a mat"}, {"text": "good", "text_pair": "bad"}]
    theirs = transformers.pipeline("text-classification", str(folder))(pairs)
    ours = _values(infer(folder, "text-classification", pairs))
    for mine, other in zip(ours, theirs, strict=True):
        _same(mine, [other], "label")


def test_a_long_text_in_windows_has_the_mean_of_their_scores(folder_of: MakeFolder) -> None:
    folder = folder_of("classes")
    params = {"overflow": "window", "top_k": None, "function_to_apply": "none"}
    (ours,) = infer(folder, "text-classification", [TEXTS[1]], params=params)
    assert ours.note == "read in 2 windows of 64 tokens"
    model = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"]
    parts = [[2, *ids[:62], 3], [2, *ids[62:], 3]]
    with torch.inference_mode():
        logits = [model(torch.tensor([part])).logits[0].numpy() for part in parts]
    mean = np.average(logits, axis=0, weights=[len(part) for part in parts])
    found = {one["label"]: one["score"] for one in ours.value}
    assert [found[f"LABEL_{i}"] for i in range(3)] == pytest.approx(mean.tolist(), abs=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_classes_never_trained(folder_of: MakeFolder, multi_label: bool) -> None:
    folder = folder_of("entailment")
    labels = ["good", "bad", "paris"]
    pipe = transformers.pipeline("zero-shot-classification", str(folder))
    theirs = pipe([TEXTS[0], TEXTS[2]], labels, multi_label=multi_label)
    params = {"candidate_labels": labels, "multi_label": multi_label}
    ours = _values(infer(folder, "zero-shot-classification", [TEXTS[0], TEXTS[2]], params=params))
    for mine, other in zip(ours, theirs, strict=True):
        assert [one["label"] for one in mine] == other["labels"]
        assert [one["score"] for one in mine] == pytest.approx(other["scores"], abs=CLOSE)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_entities(folder_of: MakeFolder, strategy: str) -> None:
    folder = folder_of("tags")
    pipe = transformers.pipeline("token-classification", str(folder), aggregation_strategy=strategy)
    texts = [TEXTS[0], TEXTS[2], TEXTS[3], "Paris lives in new york, catty or not."]
    theirs = pipe(texts)
    ours = _values(
        infer(folder, "token-classification", texts, params={"aggregation_strategy": strategy})
    )
    assert any(ours)
    for text, mine, other in zip(texts, ours, theirs, strict=True):
        renamed = [o | {"label": o.get("entity") or o.get("entity_group")} for o in other]
        _same(mine, renamed, "label", "start", "end")
        assert all(one["text"] == text[one["start"] : one["end"]] for one in mine)


def test_entities_of_a_long_text_are_found_in_windows(folder_of: MakeFolder) -> None:
    folder = folder_of("tags")
    text = "paris lives in new york, the cat sat on a mat and who is where or good? " * 5
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=64)
    pipe = transformers.pipeline(
        "token-classification",
        str(folder),
        tokenizer=tokenizer,
        aggregation_strategy="simple",
        stride=16,
    )
    theirs = pipe(text)
    (ours,) = infer(folder, "token-classification", [text], params={"stride": 16})
    assert ours.note.startswith("read in ")
    renamed = [one | {"label": one["entity_group"]} for one in theirs]
    _same(ours.value, renamed, "label", "start", "end")


def test_gaps(folder_of: MakeFolder) -> None:
    folder = folder_of("gaps")
    texts = ["the [MASK] sat", "the [MASK] sat on [MASK] mat"]
    pipe = transformers.pipeline("fill-mask", str(folder), top_k=4)
    first, second = _values(infer(folder, "fill-mask", texts, params={"top_k": 4}))
    keys = ("token", "token_str", "sequence")
    theirs = pipe(texts)
    _same(first[0], theirs[0], *keys)
    for mine, other in zip(second, theirs[1], strict=True):
        _same(mine, other, *keys)
    aimed = _values(infer(folder, "fill-mask", texts[:1], params={"targets": ["cat", "good"]}))
    _same(aimed[0][0], pipe(texts[0], targets=["cat", "good"]), *keys)


def _vector(output: ItemOutput) -> Any:
    assert output.error is None, output
    return np.frombuffer(output.data, "<f4")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_vectors(folder_of: MakeFolder, pooling: str) -> None:
    folder = folder_of("vectors")
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [TEXTS[0], TEXTS[2], TEXTS[3]]
    for normalize in (False, True):
        params = {"pooling": pooling, "normalize": normalize}
        ours = infer(folder, "embeddings", texts, params=params)
        for text, output in zip(texts, ours, strict=True):
            with torch.inference_mode():
                hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            vector = {
                "mean": hidden.mean(0),
                "cls": hidden[0],
                "max": hidden.amax(0),
                "last": hidden[-1],
            }[pooling]
            expected = vector / vector.norm() if normalize else vector
            assert _vector(output) == pytest.approx(expected.numpy(), abs=CLOSE)


def test_a_long_text_has_the_mean_of_all_its_tokens(folder_of: MakeFolder) -> None:
    folder = folder_of("vectors")
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"]
    parts = [[2, *ids[:62], 3], [2, *ids[62:], 3]]
    with torch.inference_mode():
        hidden = torch.cat([model(torch.tensor([p])).last_hidden_state[0] for p in parts])
    (ours,) = infer(folder, "embeddings", [TEXTS[1]], params={"normalize": False})
    assert _vector(ours) == pytest.approx(hidden.mean(0).numpy(), abs=CLOSE)
    assert ours.note == "read in 2 windows of 64 tokens"


def test_fewer_dimensions_are_normalized_again(folder_of: MakeFolder) -> None:
    folder = folder_of("vectors")
    (whole,) = infer(folder, "embeddings", ["good"])
    (short,) = infer(folder, "embeddings", ["good"], params={"dimensions": 8})
    head = _vector(whole)[:8]
    assert _vector(short) == pytest.approx(head / np.linalg.norm(head), abs=CLOSE)
    (wrong,) = infer(folder, "embeddings", ["good"], params={"dimensions": 33})
    assert wrong.error is not None
    assert "32 dimensions" in wrong.error.message


def test_relevance_is_the_sigmoid_of_the_best_window(folder_of: MakeFolder) -> None:
    folder = folder_of("score")
    model = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    documents = [{"query": "who", "text": "the cat"}, {"query": "who", "text": TEXTS[0]}]
    with torch.inference_mode():
        logits = [
            model(**tokenizer(d["query"], d["text"], return_tensors="pt")).logits[0, 0]
            for d in documents
        ]
    ours = _values(infer(folder, "rerank", documents))
    expected = [float(logit.sigmoid()) for logit in logits]
    assert [one["score"] for one in ours] == pytest.approx(expected, abs=CLOSE)
    long = [{"query": "who", "text": TEXTS[1]}]
    raw = {"function_to_apply": "none", "overflow": "window"}
    (best,) = _values(infer(folder, "rerank", long, params=raw))
    (cut,) = _values(infer(folder, "rerank", long, params=raw | {"overflow": "truncate"}))
    assert best["score"] >= cut["score"] - CLOSE


def test_answers_are_the_likeliest_spans(folder_of: MakeFolder) -> None:
    """Against the model called directly, and every span tried."""
    folder = folder_of("spans")
    question, context = "who lives?", "the cat lives in new york and paris."
    model = transformers.BertForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        out = model(**encoded)
    inside = [i for i, part in enumerate(encoded.sequence_ids(0)) if part == 1]
    allowed = [0, *inside]
    starts = out.start_logits[0, allowed].softmax(-1)[1:].tolist()
    ends = out.end_logits[0, allowed].softmax(-1)[1:].tolist()
    spans = [
        (starts[i] * ends[j], offsets[inside[i]][0], offsets[inside[j]][1])
        for i in range(len(inside))
        for j in range(i, min(len(inside), i + 4))
    ]
    spans.sort(reverse=True)
    item = {"question": question, "context": context}
    params = {"top_k": 3, "max_answer_len": 4}
    (ours,) = _values(infer(folder, "question-answering", [item], params=params))
    assert [(one["start"], one["end"]) for one in ours] == [(b, e) for _, b, e in spans[:3]]
    assert [one["score"] for one in ours] == pytest.approx([s for s, *_ in spans[:3]], abs=CLOSE)
    assert all(one["answer"] == context[one["start"] : one["end"]] for one in ours)


def test_an_answer_may_lie_in_any_window_or_nowhere(folder_of: MakeFolder) -> None:
    folder = folder_of("spans")
    context = "the cat lives in new york and paris " * 10
    item = {"question": "who lives?", "context": context}
    params = {"top_k": 100, "handle_impossible_answer": True}
    (ours,) = infer(folder, "question-answering", [item], params=params)
    assert ours.note.startswith("read in ")
    assert max(one["start"] for one in ours.value) > 180
    short = {"question": "who?", "context": "the cat"}
    (spans,) = infer(folder, "question-answering", [short], params=params)
    (empty,) = [one for one in spans.value if not one["answer"]]
    assert (empty["start"], empty["end"]) == (0, 0)
    assert len(spans.value) == 4
