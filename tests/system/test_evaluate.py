"""Evaluations and pipelines on the real server, with the models that come with it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llmos.abi.evals import CORPUS, DATA, EVAL, EVALUATE
from llmos.abi.jobs import ENDED, JobRecord, JobSpec
from llmos.abi.pipelines import PIPELINE
from llmos.cli.main import main
from llmos.errors import InvalidRequest
from llmos.sdk import Client
from tests.system.server import POLL_S, Server
from tests.system.test_batches import PATIENCE_POLLS, SETTINGS

GOOD = ["a wonderful film", "I loved every minute", "great acting and a fine story"]
BAD = ["a terrible bore", "I hated every minute", "awful acting and a stupid story"]
REVIEWS = "text,label\n" + "".join(
    f"{text} {n},{label}\n"
    for n in range(5)
    for texts, label in ((GOOD, "positive"), (BAD, "negative"))
    for text in texts
)
LABELS = {"kind": "classify", "format": "csv", "model": "sentiment"}


@pytest.fixture
def sdk(server: Server) -> Iterator[Client]:
    with Client(server.url, server.token) as client:
        yield client


@pytest.fixture
def own(own_server: Server) -> Iterator[Server]:
    own_server.options = (*SETTINGS, "--set", "jobs.max_running=1")
    yield own_server.start()


def until(client: Client, job_id: str, done: Callable[[JobRecord], bool]) -> JobRecord:
    pause = threading.Event()
    for _ in range(PATIENCE_POLLS):
        job = client.jobs.show(job_id).job
        if done(job):
            return job
        pause.wait(POLL_S)
    pytest.fail(f"not in time: {client.jobs.show(job_id)}")


def ended(client: Client, job_id: str) -> JobRecord:
    return until(client, job_id, lambda job: job.state in ENDED)


def evaluate(client: Client, folder: Path, spec: dict[str, Any], data: str) -> JobRecord:
    path = folder / "data.csv"
    path.write_text(data, "utf-8")
    files = {DATA: client.files.put(path).id}
    job = client.jobs.submit(JobSpec(program=EVALUATE, inputs={EVAL: spec}, files=files)).job
    return ended(client, job.job_id)


def content(client: Client, job: JobRecord, stream: str) -> bytes:
    assert job.outputs is not None
    made = io.BytesIO()
    client.files.get(job.outputs["files"][stream], made.write)
    return made.getvalue()


def test_a_classifier_is_measured_and_let_pass(sdk: Client, tmp_path: Path) -> None:
    spec = {**LABELS, "gate": {"bounds": {"accuracy": {"min": 0.6}}}, "resamples": 200}
    job = evaluate(sdk, tmp_path, spec, REVIEWS)
    assert job.state == "succeeded", job
    assert job.outputs is not None
    assert job.outputs["gate"]["passed"], job.outputs
    assert 0 < job.outputs["scores"]["ece"]["value"] < 0.5
    report = json.loads(content(sdk, job, "raw:json"))
    assert report["labels"] == ["negative", "positive"]
    assert sum(map(sum, report["confusion"])) == 30
    assert b"Gate: passed" in content(sdk, job, "raw:html")
    lines = content(sdk, job, "examples").splitlines()
    right = sum(json.loads(line)["right_was_said"] for line in lines)
    assert right / 30 == pytest.approx(job.outputs["scores"]["accuracy"]["value"], abs=1e-5)


def test_two_evaluations_are_compared_by_what_they_kept(
    server: Server,
    sdk: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = {**LABELS, "resamples": 200}
    first = evaluate(sdk, tmp_path, spec, REVIEWS)
    second = evaluate(sdk, tmp_path, {**spec, "limit": 20}, REVIEWS)
    monkeypatch.setenv("LLMOS_URL", server.url)
    monkeypatch.setenv("LLMOS_API_KEY", server.token)
    assert main(["eval", "compare", first.job_id, second.job_id[-8:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 20
    assert found["scores"]["accuracy"]["difference"]["p_value"] == 1.0
    assert main(["eval", "compare", first.job_id, second.job_id, "--score", "f1_macro"]) == 0
    assert "SENTIMENT:" in capsys.readouterr().out
    assert main(["eval", "compare", first.job_id, second.job_id, "--score", "bleu"]) != 0
    assert "there is no score 'bleu'" in capsys.readouterr().err


def test_what_will_not_do_fails_with_its_reason(sdk: Client, tmp_path: Path) -> None:
    job = evaluate(sdk, tmp_path, LABELS, "text,sentiment\nfine,positive\n")
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == (InvalidRequest.code, "columns.label")
    job = evaluate(sdk, tmp_path, {**LABELS, "model": "nobody"}, REVIEWS)
    assert job.error is not None
    assert job.error.code == "model_not_found"


def test_a_generating_model_is_found_likely_and_asked_for_letters(
    sdk: Client, tmp_path: Path
) -> None:
    spec = {"kind": "perplexity", "model": "pilot", "format": "csv", "columns": {"text": "text"}}
    job = evaluate(sdk, tmp_path, {**spec, "resamples": 100}, REVIEWS)
    assert job.outputs is not None, job
    assert job.outputs["scores"]["perplexity"]["value"] > 1
    rows = [{"question": "One, two,", "choices": ["three", "apple"], "answer": 0}] * 2
    data = "\n".join(map(json.dumps, rows))
    spec = {"kind": "choice", "by": "logprobs", "model": "pilot", "format": "jsonl"}
    job = evaluate(sdk, tmp_path, {**spec, "resamples": 100}, data)
    assert job.outputs is not None, job
    assert job.outputs["examples"] == 2


def test_a_corpus_is_searched_by_the_vectors_of_a_model(sdk: Client, tmp_path: Path) -> None:
    """Each query is a document's first words: it is nearest to nothing else."""
    texts = {"d1": "a wonderful film, one of the best", "d2": "boil rice with a lid for an hour"}
    texts |= {"d3": "trains to the coast leave at nine", "d4": "the doctor said to drink water"}
    documents, queries = tmp_path / "documents.jsonl", tmp_path / "queries.jsonl"
    documents.write_text("".join(json.dumps({"id": n, "text": texts[n]}) + "\n" for n in texts))
    asked = [{"query": " ".join(texts[n].split()[:5]), "relevant": {n: 1}} for n in texts]
    queries.write_text("\n".join(map(json.dumps, asked)))
    files = {DATA: sdk.files.put(queries).id, CORPUS: sdk.files.put(documents).id}
    spec = {"kind": "retrieve", "model": "embedding", "resamples": 100, "query_prefix": "query: "}
    job = sdk.jobs.submit(JobSpec(program=EVALUATE, inputs={EVAL: spec}, files=files)).job
    job = ended(sdk, job.job_id)
    assert job.outputs is not None, job
    assert job.outputs["scores"]["recall@1"]["value"] == 1.0
    lines = [json.loads(line) for line in content(sdk, job, "examples").splitlines()]
    assert [line["said"][0] for line in lines] == list(texts)
    assert all(sorted(line["said"]) == sorted(texts) for line in lines)


def test_a_prompt_is_echoed_with_how_likely_it_is(openai_client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pilot", "max_tokens": 1, "temperature": 0}
    plain = openai_client.completions.create(prompt="Hello there", **asked).choices[0]
    echoed = openai_client.completions.create(
        prompt="Hello there", echo=True, logprobs=1, **asked
    ).choices[0]
    assert echoed.text == "Hello there" + plain.text
    told = echoed.logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert told.token_logprobs[0] is None
    assert all(value <= 0 for value in told.token_logprobs[1:])
    assert [len(top) for top in told.top_logprobs[1:]] == [1] * (len(told.token_logprobs) - 1)
    # as lm-evaluation-harness reads it: a prompt of tokens, without the last, which was drawn
    again = openai_client.completions.create(
        prompt=[5, 6, 7, 8], echo=True, logprobs=1, **asked
    ).choices[0]
    assert again.logprobs is not None
    assert len(again.logprobs.token_logprobs or []) == 5
    with pytest.raises(openai.BadRequestError, match="echo"):
        openai_client.completions.create(prompt="x", echo=True, stream=True, **asked)


def test_a_model_is_promoted_and_an_alias_taken_away(sdk: Client) -> None:
    version = sdk.models.alias("echo", "staging", reason="it answers")
    assert sdk.models.show("echo:staging").model_id == version.model_id
    assert sdk.models.show("echo").aliases == ["latest", "staging"]
    assert sdk.models.unalias("echo:staging").aliases == ["latest"]
    with pytest.raises(InvalidRequest, match="bad alias"):
        sdk.models.alias("echo", "7")


def counting(to: int, **outputs: Any) -> dict[str, Any]:
    """A job of the drill that takes a while, and says what it is told to."""
    steps = [
        {"do": "count", "to": to, "every": 10, "delay_s": 0.01},
        {"do": "return", "outputs": outputs},
    ]
    return {"program": "drill", "inputs": {"steps": steps}}


def test_a_pipeline_goes_on_after_its_server_was_killed(own: Server) -> None:
    """With a single slot, which the pipeline lends to its steps; each of them is one job."""
    gate = {"passed": True, "checks": [{"passed": True, "reason": "good enough"}]}
    spec = {
        "steps": {
            "make": counting(150, model="echo:1"),
            "measure": {**counting(100, gate=gate, of="${make.model}")},
            "gate": {"gate": "measure"},
            "promote": {"promote": {"model": "${make.model}"}, "needs": ["gate"]},
        }
    }
    with Client(own.url, own.token) as client:
        job = client.jobs.submit(JobSpec(program=PIPELINE, inputs={PIPELINE: spec})).job
        until(client, job.job_id, lambda job: bool(client.jobs.list(parent=job.job_id).jobs))
    own.kill()
    own.start()
    with Client(own.url, own.token) as client:
        done = ended(client, job.job_id)
        assert done.state == "succeeded", done
        assert done.outputs is not None
        assert done.outputs["status"] == "completed"
        children = client.jobs.list(parent=job.job_id).jobs
        assert sorted(child.spec.name for child in children) == [
            "pipeline/make",
            "pipeline/measure",
        ]
        assert client.models.show("echo:production").ref == "echo:1"
        told = [event.value for event in client.jobs.events(job.job_id, kinds=["step"])]
        assert told[-1]["reason"] == "echo:production is echo:1"


def test_a_model_is_trained_measured_and_promoted(sdk: Client, tmp_path: Path) -> None:
    """The closed loop itself, with a model from scratch that is too small to be good."""
    path = tmp_path / "reviews.csv"
    path.write_text(REVIEWS, "utf-8")
    file_id = sdk.files.put(path).id
    recipe = {
        "name": "feelings",
        "objective": "classify",
        "data": {"train": "reviews.csv", "format": "csv"},
        "model": {
            "hidden_size": 16,
            "num_layers": 1,
            "num_heads": 2,
            "vocab_size": 300,
            "max_length": 16,
        },
        "training": {"steps": 4, "batch_size": 8},
    }
    measured = {
        "kind": "classify",
        "format": "csv",
        "model": "${train.model}",
        "against": "feelings:production?",
        "resamples": 100,
        "gate": {"bounds": {"accuracy": {"min": 0.0}}, "worse": {"accuracy": 1.0}},
    }
    steps = {
        "train": {"program": "train", "inputs": {"recipe": recipe}, "files": {"train": file_id}},
        "evaluate": {
            "program": "evaluate",
            "inputs": {"eval": measured},
            "files": {"data": file_id},
        },
        "gate": {"gate": "evaluate"},
        "promote": {"promote": {"model": "${train.model}"}, "needs": ["gate"]},
    }
    job = sdk.jobs.submit(JobSpec(program=PIPELINE, inputs={PIPELINE: {"steps": steps}})).job
    done = ended(sdk, job.job_id)
    assert done.state == "succeeded", done
    assert done.outputs is not None
    assert done.outputs["steps"]["promote"]["reason"] == "feelings:production is feelings:1"
    assert sdk.models.show("feelings:production").ref == "feelings:1"
