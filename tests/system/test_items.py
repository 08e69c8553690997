"""Work that is answered item by item, through the real server: tiny models, pulled and asked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import transformers

from tests.system.server import Server
from tests.system.test_faults import until
from tests.unit.drivers.encoder.folders import make_folder, make_writer
from tests.unit.drivers.encoder.media import (
    make_listener,
    png,
    save_random,
    tone,
    wav,
    write_json,
)

TEXTS = ["the cat sat on a mat.", "who lives in new york? " * 20, "it is good"]
TOXIC = {0: "safe", 1: "toxic"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "tiny-embed": make_folder(root / "embed", "BertModel"),
        "tiny-rank": make_folder(root / "rank", "BertForSequenceClassification", num_labels=1),
        "moderation": make_folder(
            root / "toxic",
            "BertForSequenceClassification",
            id2label=TOXIC,
            label2id={v: k for k, v in TOXIC.items()},
        ),
        "tiny-t5": make_writer(root / "t5", "T5", scale=3),
    }


@pytest.fixture(scope="module")
def serving(server: Server, folders: dict[str, Path]) -> Iterator[Server]:
    for name, folder in folders.items():
        done = server.cli("pull", f"file:{folder}", "--name", name)
        assert done.returncode == 0, done.stderr
    yield server


def test_a_version_says_what_it_is_for(http: httpx.Client) -> None:
    models = {m["name"]: m for m in http.get("/os/v1/models").json()["models"]}
    assert models["tiny-embed"]["kinds"] == ["embeddings"]
    assert models["tiny-rank"]["kinds"] == ["rerank", "text-classification"]
    assert models["tiny-t5"]["kinds"] == ["summarization", "translation"]
    assert models["pilot"]["kinds"] == ["generate"]


def test_embeddings_by_openais_client(api: openai.OpenAI, folders: dict[str, Path]) -> None:
    import torch

    answer = api.embeddings.create(model="tiny-embed", input=TEXTS)
    plain = api.embeddings.create(model="tiny-embed", input=TEXTS, encoding_format="float")
    model = transformers.BertModel.from_pretrained(folders["tiny-embed"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["tiny-embed"])
    for i in (0, 2):
        with torch.inference_mode():
            hidden = model(**tokenizer(TEXTS[i], return_tensors="pt")).last_hidden_state[0].mean(0)
        expected = (hidden / hidden.norm()).numpy()
        assert answer.data[i].embedding == pytest.approx(expected.tolist(), abs=1e-5)
        assert plain.data[i].embedding == pytest.approx(expected.tolist(), abs=1e-5)
    assert np.linalg.norm(answer.data[1].embedding) == pytest.approx(1.0, abs=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 100
    short = api.embeddings.create(model="tiny-embed", input="it is good", dimensions=8)
    assert len(short.data[0].embedding) == 8
    with pytest.raises(openai.BadRequestError, match="32 dimensions"):
        api.embeddings.create(model="tiny-embed", input="it is good", dimensions=64)


def test_rerank_and_moderation_and_writing(api: openai.OpenAI, http: httpx.Client) -> None:
    body = {"model": "tiny-rank", "query": "who", "documents": ["the cat", "paris", "it is good"]}
    ranked = http.post("/v1/rerank", json=body).json()["results"]
    scores = [one["relevance_score"] for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert {one["index"] for one in ranked} == {0, 1, 2}
    found = api.moderations.create(input="it is bad")
    assert found.model == "moderation:1"
    assert isinstance(found.results[0].flagged, bool)
    body = {"model": "tiny-t5", "inputs": TEXTS, "params": {"max_new_tokens": 4}}
    written = http.post("/os/v1/infer", json=body).json()
    assert written["kind"] == "summarization"
    assert [one["output"]["num_tokens"] for one in written["data"]] == [4, 4, 4]
    assert written["data"][1]["note"] == "cut to 64 tokens"


def test_a_bad_input_fails_alone_and_a_bad_request_whole(http: httpx.Client) -> None:
    body: dict[str, Any] = {"model": "moderation", "inputs": ["good", 3, "bad"]}
    answer = http.post("/os/v1/infer", json=body)
    assert answer.status_code == 200
    assert [("error" in one) for one in answer.json()["data"]] == [False, True, False]
    for wrong, code in (
        ({"kind": "embeddings"}, "invalid_request"),
        ({"model": "pilot"}, "invalid_request"),
        ({"params": {"top": 1}}, "invalid_request"),
        ({"model": "nobody"}, "model_not_found"),
        ({"llmos": {"resume_s": 5}}, "invalid_request"),
        ({"llmos": {"deterministic": True}}, "unsupported_parameter"),
    ):
        refused = http.post("/os/v1/infer", json=body | wrong)
        assert refused.json()["error"]["code"] == code, refused.text
    asked = {"model": "tiny-embed", "messages": [{"role": "user", "content": "x"}]}
    assert "is for embeddings" in http.post("/v1/chat/completions", json=asked).text


def asked(serving: Server, body: dict[str, Any], url: str = "/os/v1/infer") -> httpx.Response:
    with serving.client(timeout=90.0) as own:
        return own.post(url, json=body)


def find_running(http: httpx.Client, model: str) -> dict[str, Any]:
    """The process of this model, as soon as it runs."""
    running: list[dict[str, Any]] = []

    def runs() -> bool:
        listed = http.get("/os/v1/processes?state=running").json()["processes"]
        running[:] = [process for process in listed if process["model"] == model]
        return bool(running)

    until(runs, timeout_s=60)
    return running[0]


def test_it_is_a_process_like_any_other(serving: Server, http: httpx.Client) -> None:
    """Metered, explained, and ended by an operator while it runs."""
    body = {"model": "tiny-t5", "inputs": ["the cat sat"] * 2000, "params": {"max_new_tokens": 60}}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asked, serving, body)
        running = find_running(http, "tiny-t5:1")
        assert running["prompt_tokens"] > 2000
        process = running["process_id"]
        assert http.delete(f"/os/v1/processes/{process}").status_code == 200
        assert answer.result(60).json()["error"]["code"] == "cancelled"
    story = http.get(f"/os/v1/processes/{process}").json()
    assert story["info"]["state"] == "aborted"
    assert http.get("/readyz").status_code == 200


def test_one_that_is_suspended_goes_on_with_what_is_left(
    serving: Server, http: httpx.Client
) -> None:
    """No snapshot: the items that were answered stay answered, each is said once."""
    body = {"model": "tiny-t5", "inputs": ["the cat sat"] * 300, "params": {"max_new_tokens": 40}}
    with ThreadPoolExecutor(1) as pool:
        caught = pool.submit(asked, serving, body)
        path = f"/os/v1/processes/{find_running(http, 'tiny-t5:1')['process_id']}"
        assert http.post(f"{path}/suspend").status_code == 200
        assert http.get(path).json()["info"]["state"] == "suspended"
        assert http.post(f"{path}/resume").status_code == 200
        answer = caught.result(90).json()
    assert [one["index"] for one in answer["data"]] == list(range(300))
    assert len({one["output"]["text"] for one in answer["data"]}) == 1
    assert answer["llmos"]["context"] == "recomputed"


def test_unloading_while_it_works_loses_nothing(serving: Server, http: httpx.Client) -> None:
    body = {"model": "tiny-embed", "input": ["the cat sat on a mat"] * 1500}
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(asked, serving, body, "/v1/embeddings") for _ in range(3)]
        http.post("/os/v1/models/tiny-embed/unload")
        caught = [answer.result(90) for answer in waiting]
    assert [answer.status_code for answer in caught] == [200] * 3
    assert all(len(answer.json()["data"]) == 1500 for answer in caught)


def test_images_and_speech(
    serving: Server, api: openai.OpenAI, http: httpx.Client, tmp_path: Path
) -> None:
    """A picture in JSON and a recording in a form; files that are neither fail where they are."""
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_labels=3,
    )
    save_random(tmp_path / "vit", transformers.ViTForImageClassification(config), 0.2)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    write_json(tmp_path / "vit" / "preprocessor_config.json", settings)
    make_listener(tmp_path / "ctc")
    for name in ("vit", "ctc"):
        done = serving.cli("pull", f"file:{tmp_path / name}", "--name", f"tiny-{name}")
        assert done.returncode == 0, done.stderr
    image, junk = (base64.b64encode(data).decode() for data in (png(40, 30), b"no picture"))
    body = {"model": "tiny-vit", "inputs": [{"image": image}, {"image": junk}]}
    seen, broken = http.post("/os/v1/infer", json=body).json()["data"]
    assert len(seen["output"]) == 3
    assert broken["error"]["code"] == "invalid_request"
    said = api.audio.transcriptions.create(model="tiny-ctc", file=("a.wav", wav(tone(0.5))))
    assert isinstance(said.text, str)
    with pytest.raises(openai.BadRequestError, match="no WAV file"):
        api.audio.transcriptions.create(model="tiny-ctc", file=("a.wav", b"junk"))
    left = [p.name for p in (serving.home / "scratch").iterdir() if p.name.startswith("spill-")]
    assert left == []
    assert list((serving.home / "uploads").iterdir()) == []
