"""The program `evaluate`: what is asked, what it comes to, and what it refuses."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.evals import CORPUS, DATA, EVAL
from llmos.abi.events import ItemOutput, Logprobs, TokenLogprob
from llmos.abi.inference import ItemsPrompt, TextPrompt
from llmos.abi.program import Answer, Generate, Yielded
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import Model, ShowModel
from llmos.errors import EngineFailed, InvalidRequest
from llmos.programs.evaluate.program import EvaluateProgram
from llmos.programs.task import rounds
from tests.unit.programs.fake_context import FakeContext, Rows, echo

Answerer = Callable[[Generate], Answer]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "PAUSES_S", (0.0,))


def version(ref: str, kinds: list[str]) -> ModelVersion:
    return ModelVersion(
        model_id=f"mdl_{ref}",
        name=ref,
        version="1",
        driver="encoder",
        format="safetensors",
        folder="",
        digest="",
        size_bytes=1,
        context_length=512,
        vocab_size=9,
        prepare="",
        source="",
        created_ns=0,
        has_chat_template=True,
        kinds=kinds,
    )


def context(
    folder: Path,
    spec: dict[str, Any],
    data: str,
    answer: Answerer,
    kinds: str = "generate",
    rows: Rows | None = None,
) -> FakeContext:
    path = folder / "data"
    path.write_text(data, "utf-8")
    inputs = {EVAL: {"model": "new", "resamples": 200, **spec}}
    made = FakeContext(folder, inputs, {DATA: str(path)}, answer=answer, rows=rows)
    made.asked[ShowModel] = lambda call: Model(version(call.ref, [kinds]))
    return made


def run(*args: Any, **fields: Any) -> tuple[dict[str, Any], FakeContext]:
    ctx = context(*args, **fields)
    return dict(EvaluateProgram().run(ctx)), ctx


def by_item(make: Callable[[str, Any], Any]) -> Answerer:
    """Item by item; `make` gets the model and the item."""

    def answer(request: Generate) -> Answer:
        assert isinstance(request.prompt, ItemsPrompt)
        outputs = [
            ItemOutput(n, make(request.model, item)) for n, item in enumerate(request.prompt.items)
        ]
        return msgspec.structs.replace(echo(request), outputs=outputs)

    return answer


def sentiment(model: str, text: str) -> list[dict[str, Any]]:
    """The new one looks for a word, the old one always says the same."""
    good = 0.9 if "fine" in text and model.startswith("new") else 0.2
    scores = [{"label": "good", "score": good}, {"label": "bad", "score": 1 - good}]
    return sorted(scores, key=lambda one: -one["score"])


KIND = "text-classification"
REVIEWS = "text,label,topic\n" + "".join(
    f"{'fine' if n % 3 else 'poor'} thing {n},{'good' if n % 3 else 'bad'},{'abc'[n % 2]}\n"
    for n in range(60)
)


def test_a_classifier_is_scored_compared_and_let_pass(tmp_path: Path) -> None:
    spec = {
        "kind": "classify",
        "format": "csv",
        "against": "old",
        "slices": ["topic"],
        "gate": {
            "bounds": {"accuracy": {"min": 0.9, "sure": True}, "ece": {"max": 0.5}},
            "worse": {"accuracy": 0.01},
        },
    }
    outputs, ctx = run(tmp_path, spec, REVIEWS, by_item(sentiment), kinds="text-classification")
    accuracy = outputs["scores"]["accuracy"]
    assert (accuracy["value"], accuracy["against"]) == (1.0, pytest.approx(1 / 3, abs=1e-6))
    assert accuracy["difference"]["p_value"] < 1e-6
    assert accuracy["difference"]["test"] == "McNemar's exact test"
    assert outputs["scores"]["roc_auc"]["value"] == 1.0
    assert outputs["gate"]["passed"]
    assert [check["passed"] for check in outputs["gate"]["checks"]] == [True] * 3
    assert [(s["value"], s["examples"], s["score"]) for s in outputs["slices"]] == [
        ("a", 30, 1.0),
        ("b", 30, 1.0),
    ]
    report = json.loads(ctx.lines("raw:json")[0])
    assert report["confusion"] == [[20, 0], [0, 40]]
    assert report["curves"]["roc"][0]["label"] == "good"
    page = ctx.lines("raw:html")[0].decode()
    assert "Gate: passed" in page
    assert page.count("<svg") == 4
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    lines = [json.loads(line) for line in ctx.lines("examples")]
    assert len(lines) == 60
    assert lines[1] == {
        "example": 1,
        "topic": "b",
        "asked": "fine thing 1",
        "expected": "good",
        "said": "good",
        "right_was_said": True,
        "probability": 0.9,
        "other_said": "bad",
    }


def test_a_gate_that_is_not_passed_says_why(tmp_path: Path) -> None:
    spec = {
        "kind": "classify",
        "format": "csv",
        "model": "old",
        "against": "new",
        "gate": {"bounds": {"f1_macro": {"min": 0.5}}, "worse": {"accuracy": 0.05}},
    }
    outputs, _ = run(tmp_path, spec, REVIEWS, by_item(sentiment), kinds="text-classification")
    assert outputs["gate"]["passed"] is False
    first, second = outputs["gate"]["checks"]
    assert first["reason"] == "f1_macro is 0.2500, at least 0.5 wanted"
    assert second["reason"] == (
        "accuracy is 0.3333, that of new 1.0000: worse by more than 0.05 with probability 1.000, "
        "at most 0.05 allowed"
    )


@pytest.mark.parametrize(
    ("spec", "data", "match"),
    [
        ({"format": "csv"}, "text,label\n", "no examples"),
        ({"format": "csv"}, "text,label\na,x\nb,x\n", "every example is 'x'"),
        ({"format": "csv"}, "text,other\na,x\n", "no column 'label'; it has 'text', 'other'"),
        ({"format": "csv"}, "text,label\na,\nb,x\n", "example 1: 'label' is empty"),
        ({"format": "csv"}, "text,label\na\n", "example 1: line 2 has 1 fields"),
        (
            {"format": "csv", "labels": ["good", "bad"]},
            "text,label\na,god\n",
            "did you mean 'good'",
        ),
        ({"format": "csv"}, "text,label\na,x\nb,y\n", "say which is which in `rename`"),
        ({"format": "csv", "slices": ["who"]}, "text,label\na,x\nb,y\n", "no column 'who'"),
        ({"format": "jsonl"}, "{]\n", "example 1: not JSON"),
        ({"format": "csv", "score": "acuracy"}, REVIEWS, "no score 'acuracy'; there is accuracy"),
        ({"kind": "ner", "format": "conll"}, "EU\n", "line 1 is no token with a tag"),
        ({"kind": "ner", "format": "conll"}, "EU\tX-ORG\n", "'X-ORG' is no tag"),
        ({"kind": "qa", "format": "squad"}, '{"data": [{}]}', "no SQuAD"),
        ({"kind": "perplexity", "format": "text"}, "some text", "needs a model that generates"),
        ({"kind": "classify", "bananas": 1}, "", "unknown field `bananas`"),
        ({"kind": "judge"}, "", "name who judges"),
        ({"kind": "classify", "gate": {"worse": {"f1": 0}}}, "", "needs `against`"),
    ],
)
def test_what_will_not_do_is_refused_by_name(
    tmp_path: Path, spec: dict[str, Any], data: str, match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        run(
            tmp_path,
            {"kind": "classify", **spec},
            data,
            by_item(sentiment),
            kinds="text-classification",
        )


def test_a_label_by_another_name_is_renamed(tmp_path: Path) -> None:
    data = "text,label\nfine,1\npoor,0\n"
    spec = {"kind": "classify", "format": "csv", "rename": {"good": "1", "bad": "0"}}
    outputs, _ = run(tmp_path, spec, data, by_item(sentiment), kinds="text-classification")
    assert outputs["scores"]["mcc"]["value"] == 1.0


def test_a_prompted_model_that_says_nothing_of_use_is_wrong(tmp_path: Path) -> None:
    def answer(request: Generate) -> Answer:
        text = request.prompt.messages[-1]["content"].rpartition("Text: ")[2]
        said = "good" if "fine" in text else "I cannot tell"
        return msgspec.structs.replace(echo(request), text=said)

    spec = {"kind": "classify", "format": "csv"}
    outputs, ctx = run(tmp_path, spec, REVIEWS, answer)
    assert outputs["rejected"] == 20
    assert outputs["scores"]["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert json.loads(ctx.lines("raw:json")[0])["labels"] == ["bad", "good", "(none)"]


def test_calls_that_fail_are_no_answers(tmp_path: Path) -> None:
    def answer(request: Generate) -> Answer:
        if "thing 7," in str(request.prompt) or "thing 7'" in str(request.prompt):
            return Answer(error=EngineFailed("broken").to_info())
        return msgspec.structs.replace(echo(request), text="good")

    spec: dict[str, Any] = {"kind": "classify", "format": "csv", "policy": {"retries": 0}}
    with pytest.raises(EngineFailed, match="1 of 60 calls failed; example 8: broken"):
        run(tmp_path, spec, REVIEWS, answer)
    outputs, _ = run(tmp_path, {**spec, "max_failed": 0.1}, REVIEWS, answer)
    assert (outputs["examples"], outputs["failed"]) == (59, 1)


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """An attempt that gives way leaves answers, and the next one asks for the rest."""
    rows: Rows = {}
    data = "".join(json.dumps({"text": f"t{n}", "reference": f"t{n}"}) + "\n" for n in range(20))
    spec = {"kind": "generate", "prompt": "{{ text }}", "policy": {"window": 2}}
    first = context(tmp_path, spec, data, echo, rows=rows)
    first.on_answer = lambda number: setattr(first, "should_yield", number >= 7)
    with pytest.raises(Yielded):
        EvaluateProgram().run(first)
    outputs, second = run(tmp_path, spec, data, echo, rows=rows)
    assert first.num_asked + second.num_asked == 20
    assert outputs["scores"]["exact_match"]["value"] == 1.0


def test_entities_are_matched_by_their_places(tmp_path: Path) -> None:
    data = "EU B-ORG\nrejects O\nBritain B-LOC\n\nPeter B-PER\nBlackburn I-PER\n\n"

    def find(model: str, text: str) -> list[dict[str, Any]]:
        if text.startswith("EU"):
            return [
                {"label": "ORG", "start": 0, "end": 2, "text": "EU"},
                {"label": "ORG", "start": 11, "end": 18, "text": "Britain"},
            ]
        return [{"label": "PER", "start": 0, "end": 15, "text": "Peter Blackburn"}]

    spec = {"kind": "ner", "format": "conll"}
    outputs, _ = run(tmp_path, spec, data, by_item(find), kinds="token-classification")
    assert outputs["scores"]["f1_micro"]["value"] == pytest.approx(2 / 3, abs=1e-6)


def test_entities_that_are_quoted_are_looked_for(tmp_path: Path) -> None:
    data = "南 B-LOC\n京 I-LOC\n在 O\n南 B-LOC\n京 I-LOC\n"
    said = '[{"text": "南京", "type": "LOC"}, {"text": "南京", "type": "LOC"}]'
    spec = {"kind": "ner", "format": "conll"}
    outputs, _ = run(tmp_path, spec, data, lambda r: msgspec.structs.replace(echo(r), text=said))
    assert outputs["scores"]["f1_micro"]["value"] == 1.0


def test_questions_of_squad(tmp_path: Path) -> None:
    asked = [
        {"id": "1", "question": "who?", "answers": [{"text": "Ada Lovelace", "answer_start": 0}]},
        {"id": "2", "question": "when?", "answers": [], "is_impossible": True},
    ]
    data = json.dumps({"data": [{"paragraphs": [{"context": "Ada.", "qas": asked}]}]})
    answer = by_item(lambda model, item: [{"answer": "Lovelace", "score": 0.5}])
    spec = {"kind": "qa", "format": "squad"}
    outputs, _ = run(tmp_path, spec, data, answer, kinds="question-answering")
    assert outputs["scores"]["f1"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert outputs["scores"]["exact_match"]["value"] == 0.0


def test_retrieval_by_a_reranker_and_by_vectors(tmp_path: Path) -> None:
    row = {"query": "cat", "documents": ["a dog", "the cat", "a cat!"], "relevant": [1, 2]}
    spec = {"kind": "retrieve"}
    rank = by_item(lambda model, item: {"score": float("cat" in item["text"])})
    outputs, _ = run(tmp_path, spec, json.dumps(row), rank, kinds="rerank")
    assert outputs["scores"]["ndcg@10"]["value"] == 1.0

    def embed(request: Generate) -> Answer:
        vectors = [[1.0, 0.1] if "dog" in t else [0.1, 1.0] for t in request.prompt.items]
        outputs = [ItemOutput(n, data=array("f", v).tobytes()) for n, v in enumerate(vectors)]
        return msgspec.structs.replace(echo(request), outputs=outputs)

    outputs, _ = run(tmp_path, spec, json.dumps(row), embed, kinds="embeddings")
    assert outputs["scores"]["mrr"]["value"] == 1.0


CORPUS_LINES = [
    {"_id": "d1", "text": "a dog"},
    {"_id": "d2", "text": "the cat"},
    {"_id": "d3", "text": "cats and a dog"},
    {"_id": "d4", "text": "a stone"},
]
SEARCHES = [
    {"query": "cat", "relevant": ["d2", "d3"]},
    {"query": "dog", "relevant": {"d1": 2, "d3": 1}},
    {"query": "stone", "relevant": "d1"},
]


def as_words(request: Generate) -> Answer:
    """A place for each animal, and one for what is neither."""
    assert isinstance(request.prompt, ItemsPrompt)
    outputs = []
    for n, text in enumerate(request.prompt.items):
        vector = [float("cat" in text), 2.0 * ("dog" in text), float("stone" in text)]
        outputs.append(ItemOutput(n, data=array("f", vector).tobytes()))
    return msgspec.structs.replace(echo(request), outputs=outputs)


def searching(
    folder: Path,
    answer: Answerer = as_words,
    corpus: list[dict[str, Any]] = CORPUS_LINES,
    searches: list[dict[str, Any]] = SEARCHES,
    **fields: Any,
) -> FakeContext:
    spec = {"kind": "retrieve", **fields.pop("spec", {})}
    data = "\n".join(map(json.dumps, searches))
    made = context(folder, spec, data, answer, **{"kinds": "embeddings", **fields})
    path = folder / "corpus"
    path.write_text("\n".join(map(json.dumps, corpus)))
    made.files = {**made.files, CORPUS: str(path)}
    return made


def test_a_whole_corpus_is_searched(tmp_path: Path) -> None:
    ctx = searching(tmp_path)
    outputs = EvaluateProgram().run(ctx)
    lines = [json.loads(line) for line in ctx.lines("examples")]
    assert [line["said"] for line in lines] == [
        ["d2", "d3", "d1", "d4"],
        ["d1", "d3", "d2", "d4"],
        ["d4", "d1", "d2", "d3"],
    ]
    scores = {name: row["value"] for name, row in outputs["scores"].items()}
    assert scores["mrr"] == pytest.approx((1 + 1 + 1 / 2) / 3, abs=1e-6)
    assert scores["recall@1"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3, abs=1e-6)
    assert scores["recall@3"] == 1.0
    assert scores["ndcg@10"] == pytest.approx((1 + 1 + 1 / math.log2(3)) / 3, abs=1e-6)
    assert outputs["corpus"].startswith("sha256:")


def test_who_was_made_a_vector_of_is_not_asked_again(tmp_path: Path) -> None:
    rows: Rows = {}
    whole = EvaluateProgram().run(searching(tmp_path, rows=rows))
    kept = {key: value for key, value in rows.items() if key[0] == "model_corpus"}
    assert len(kept) == len(CORPUS_LINES)
    again = searching(tmp_path, rows=kept)
    assert EvaluateProgram().run(again)["scores"] == whole["scores"]
    assert again.num_asked == 1


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"kinds": "rerank"}, "model", "a corpus is searched by embeddings"),
        ({"corpus": []}, "corpus", "no documents"),
        ({"corpus": [*CORPUS_LINES, CORPUS_LINES[0]]}, "corpus", "two documents are 'd1'"),
        ({"corpus": [{"text": "a dog"}]}, "columns.id", "has no column 'id'"),
        ({"corpus": [{"id": "d1", "text": " "}]}, "columns.document", "is empty"),
        (
            {"searches": [{"query": "cat", "relevant": ["d9"]}]},
            "columns.relevant",
            "the corpus has no document 'd9'",
        ),
        (
            {"searches": [{"query": "cat", "relevant": {"d1": "much"}}]},
            "columns.relevant",
            "gains by name",
        ),
        ({"spec": {"kind": "classify"}}, "files.corpus", "classify searches no corpus"),
    ],
)
def test_what_cannot_be_searched(
    tmp_path: Path, fields: dict[str, Any], param: str, told: str
) -> None:
    ctx = searching(tmp_path, **fields)
    with pytest.raises(InvalidRequest, match=told) as raised:
        EvaluateProgram().run(ctx)
    assert raised.value.param == param
    assert not ctx.num_asked


def test_a_document_without_a_vector_is_nobodys_to_leave_out(tmp_path: Path) -> None:
    def answer(request: Generate) -> Answer:
        made = as_words(request)
        assert isinstance(request.prompt, ItemsPrompt)
        wrong = EngineFailed("too odd").to_info()
        outputs = [
            ItemOutput(one.index, error=wrong) if "stone" in text else one
            for one, text in zip(made.outputs, request.prompt.items, strict=True)
        ]
        return msgspec.structs.replace(made, outputs=outputs)

    ctx = searching(tmp_path, answer, spec={"max_failed": 1.0, "policy": {"retries": 0}})
    with pytest.raises(EngineFailed, match="document 'd4': too odd"):
        EvaluateProgram().run(ctx)


def test_choices_by_letter(tmp_path: Path) -> None:
    rows = [
        {"question": "2+2", "choices": ["3", "4"], "answer": "B"},
        {"question": "3+3", "choices": ["6", "7"], "answer": 0},
    ]
    data = "\n".join(map(json.dumps, rows))

    def answer(request: Generate) -> Answer:
        assert "A. " in request.prompt.messages[0]["content"]
        return msgspec.structs.replace(echo(request), text="The answer is B.")

    outputs, _ = run(tmp_path, {"kind": "choice"}, data, answer)
    assert outputs["scores"]["accuracy"]["value"] == 0.5


def priced(request: Generate) -> Answer:
    """A token a word; those with an `x` are unlikely."""
    assert isinstance(request.prompt, TextPrompt)
    words = request.prompt.text.split(" ")
    pieces = [(" " if n else "") + word for n, word in enumerate(words)]
    told = [
        Logprobs(TokenLogprob(n, piece.encode(), -4.0 if "x" in piece else -1.0), [])
        for n, piece in enumerate(pieces)
    ]
    return msgspec.structs.replace(echo(request), prompt_logprobs=told)


def test_choices_by_how_likely_they_are(tmp_path: Path) -> None:
    rows = [
        {"question": "which", "choices": ["x x x x", "yes"], "answer": "yes"},
        {"question": "which x", "choices": ["xylophonist", "a b c d e"], "answer": 0},
    ]
    data = "\n".join(map(json.dumps, rows))
    outputs, ctx = run(tmp_path, {"kind": "choice", "by": "logprobs"}, data, priced)
    assert outputs["scores"]["accuracy"]["value"] == 1.0
    assert outputs["scores"]["accuracy_per_byte"]["value"] == 1.0
    assert json.loads(ctx.lines("examples")[0])["logprobs"] == [-16.0, -1.0]


def test_perplexity_of_a_text(tmp_path: Path) -> None:
    spec = {"kind": "perplexity", "format": "text", "window_bytes": 16}
    outputs, _ = run(tmp_path, spec, "a b c d\n" * 4, priced)
    assert outputs["examples"] == 2
    assert outputs["scores"]["nll_per_token"]["value"] == 1.0


def test_a_judge_that_prefers_a_place_says_nothing(tmp_path: Path) -> None:
    data = "\n".join(json.dumps({"text": f"q{n}", "reference": "long answer"}) for n in range(6))

    def judged(prefers: str) -> Answerer:
        def answer(request: Generate) -> Answer:
            text = request.prompt.messages[-1]["content"]
            if "You compare" not in text:
                return msgspec.structs.replace(echo(request), text="mine")
            assert request.sampling.grammar is not None
            mine_is = "A" if "Answer A:\nmine" in text else "B"
            verdict = {"first": "A", "mine": mine_is}[prefers]
            said = json.dumps({"reason": "so", "verdict": verdict})
            return msgspec.structs.replace(echo(request), text=said)

        return answer

    spec = {"kind": "judge", "judge": {"model": "judge"}}
    outputs, _ = run(tmp_path, spec, data, judged("mine"))
    assert outputs["scores"]["win_rate"]["value"] == 1.0
    (tmp_path / "b").mkdir()
    outputs, _ = run(tmp_path / "b", spec, data, judged("first"))
    assert outputs["scores"]["win_rate"]["value"] == 0.5
    assert outputs["scores"]["verdicts_that_stay"]["value"] == 0.0


def test_the_same_examples_are_drawn_by_the_same_seed(tmp_path: Path) -> None:
    spec = {"kind": "classify", "format": "csv", "limit": 10, "seed": 3}
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _, ctx = run(
            tmp_path / name, spec, REVIEWS, by_item(sentiment), kinds="text-classification"
        )
        found.append(ctx.lines("examples"))
    assert found[0] == found[1]
    assert len(found[0]) == 10
