"""Sound and images through the real server, and what becomes of those that cannot be read."""

from __future__ import annotations

import base64
import io
import json
import threading
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from llmos.abi.jobs import ENDED
from llmos.sdk import Client
from tests.contract.encoder.test_captions import expected, make_captioner
from tests.system.server import POLL_S, Server
from tests.unit.drivers.encoder.folders import make_folder
from tests.unit.drivers.encoder.media import make_listener, png, tone, wav, write_json
from tests.unit.drivers.encoder.voices import make_voice

LONG = "The cat sat on a mat. " * 30
PAGES = "who lives in new york and paris, the cat or a mat? " * 10_000
"""About two hundred."""


def make_sentences(folder: Path) -> Path:
    """As sentence-transformers writes them: the vector is that of the first token."""
    make_folder(folder, "BertModel", max_position_embeddings=512)
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(folder / "modules.json", modules)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("media")
    return {
        "tiny-voice": make_voice(root / "voice"),
        "tiny-seer": make_captioner(root / "seer", "vit-gpt2"),
        "tiny-blip": make_captioner(root / "blip", "blip"),
        "tiny-ear": make_listener(root / "ear"),
        "tiny-vectors": make_sentences(root / "vectors"),
        "tiny-judge": make_folder(
            root / "judge", "BertForSequenceClassification", max_position_embeddings=512
        ),
    }


@pytest.fixture(scope="module")
def serving(server: Server, folders: dict[str, Path]) -> Iterator[Server]:
    """Every folder is sent over the network, not named by its path."""
    with Client(server.url, api_key=server.token) as client:
        for name, folder in folders.items():
            assert client.models.pull(f"file:{folder}", name).ref == f"{name}:1"
    yield server


@pytest.fixture
def client(serving: Server) -> Iterator[Client]:
    with Client(serving.url, api_key=serving.token) as made:
        yield made


def _frames(data: bytes) -> tuple[int, bytes]:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), file.readframes(1 << 28)


def test_openais_client_hears_a_text(api: openai.OpenAI, http: httpx.Client) -> None:
    speech = api.audio.speech
    seed = {"llmos": {"seed": 4}}
    short = speech.create(
        model="tiny-voice", input="A cat.", voice="alloy", response_format="wav", extra_body=seed
    )
    body = {"model": "tiny-voice", "inputs": ["A cat."], "params": {"seed": 4}}
    (datum,) = http.post("/os/v1/infer", json=body).json()["data"]
    assert base64.b64decode(datum["output"]["audio"]) == short.read()
    rate, frames = _frames(short.read())
    assert datum["output"]["sampling_rate"] == rate
    assert datum["output"]["seconds"] == len(frames) / 2 / rate
    with speech.with_streaming_response.create(
        model="tiny-voice", input=LONG, voice="alloy", response_format="pcm", extra_body=seed
    ) as answer:
        assert "content-length" not in answer.headers
        heard = b"".join(answer.iter_bytes())
    body["inputs"] = [LONG]
    (datum,) = http.post("/os/v1/infer", json=body).json()["data"]
    assert _frames(base64.b64decode(datum["output"]["audio"]))[1] == heard
    for wrong in ("mp3", "opus", "aac", "flac"):
        with pytest.raises(openai.BadRequestError, match="wav, pcm"):
            speech.create(model="tiny-voice", input="x", voice="a", response_format=wrong)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="no letter"):
        speech.create(model="tiny-voice", input="你好", voice="a", response_format="wav")
    with pytest.raises(openai.BadRequestError, match="is for embeddings"):
        speech.create(model="tiny-vectors", input="hi", voice="a", response_format="wav")


def test_the_sdk_and_the_command_line_speak_and_listen(
    serving: Server, client: Client, tmp_path: Path
) -> None:
    heard = bytearray()
    num_bytes = client.items.speak("tiny-voice", LONG, heard.extend, llmos={"seed": 2})
    assert num_bytes == len(heard) > 44
    path = tmp_path / "said.wav"
    done = serving.cli("infer", "tiny-voice", LONG, "--param", "seed=2", "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert _frames(path.read_bytes()) == _frames(bytes(heard))
    recording = tmp_path / "tone.wav"
    recording.write_bytes(wav(tone(0.5)))
    text = client.items.transcribe("tiny-ear", recording)
    assert text == client.items.transcribe("tiny-ear", recording.read_bytes())
    listened = serving.cli("infer", "tiny-ear", "--audio", str(recording))
    assert listened.stdout.strip() == text


def test_images_are_described(serving: Server, client: Client, tmp_path: Path) -> None:
    image = png(40, 30)
    params = {"max_new_tokens": 6}
    made = client.items.infer("tiny-seer", [{"image": image}] * 2, params=params)
    assert made.kind == "image-to-text"
    assert [one.output["num_tokens"] for one in made.data] == [6, 6]
    (tmp_path / "a.png").write_bytes(image)
    shown = serving.cli(
        "infer", "tiny-seer", "--image", str(tmp_path / "a.png"), "--param", "max_new_tokens=6"
    )
    assert shown.stdout.strip() == made.data[0].output["text"]


def test_a_task_describes_images_and_writes_down_recordings(client: Client) -> None:
    good = base64.b64encode(png(40, 30)).decode()
    images = ["data:image/png;base64," + good, "no base64!", base64.b64encode(b"junk").decode()]
    sounds = [base64.b64encode(one).decode() for one in (wav(tone(0.3)), b"junk")]
    for kind, model, column, values in (
        ("caption", "tiny-seer", "image", images * 4),
        ("transcribe", "tiny-ear", "audio", sounds),
    ):
        task = {
            "type": kind,
            "model": model,
            "input": {"items": [{"id": i, column: one} for i, one in enumerate(values)]},
            "params": {"max_new_tokens": 5},
            "output": {"formats": ["jsonl"], "columns": ["id"]},
        }
        reply, pause = client.tasks.create(task), threading.Event()
        while reply.job.state not in ENDED:
            pause.wait(POLL_S)
            reply = client.tasks.show(reply.job.job_id)
        made = io.BytesIO()
        client.tasks.result(reply.job.job_id, made.write)
        rows = [json.loads(line) for line in made.getvalue().splitlines()]
        assert [row["id"] for row in rows] == list(range(len(values)))
        is_good = [one in (images[0], sounds[0]) for one in values]
        assert [not row.get("error") for row in rows] == is_good, rows
        assert all(isinstance(row["output"], str) for row in rows if not row.get("error"))


def test_what_cannot_be_read_fails_alone(client: Client) -> None:
    """A picture cut off, another that claims to be huge, recordings that are none."""
    image = png(40, 30)
    broken = [image[: len(image) // 2], b"", b"\x89PNG\r\n\x1a\njunk", b"RIFF" + image]
    made = client.items.infer(
        "tiny-seer", [{"image": one} for one in (image, *broken, image)], params={"num_beams": 2}
    )
    errors = [None if one.error is None else one.error.code for one in made.data]
    assert errors == [None, *["invalid_request"] * len(broken), None]
    good = wav(tone(0.3))
    silent = wav(np.zeros(0))
    broken = [good[:30], b"junk", silent, good[:20] + b"\xff\xff" + good[22:]]
    made = client.items.infer("tiny-ear", [{"audio": one} for one in (good, *broken, good)])
    errors = [None if one.error is None else one.error.code for one in made.data]
    assert errors == [None, *["invalid_request"] * len(broken), None]
    assert made.data[0].output == made.data[-1].output


@pytest.mark.parametrize("overflow", ["truncate", "window", "refuse"])
@pytest.mark.parametrize("model", ["tiny-vectors", "tiny-judge"])
def test_two_hundred_pages_for_an_encoder_of_512_tokens(
    client: Client, model: str, overflow: str
) -> None:
    made = client.items.infer(model, ["a cat", PAGES, "paris"], llmos={"overflow": overflow})
    short, pages, last = made.data
    assert short.error is last.error is None
    if overflow == "refuse":
        assert pages.error is not None
        assert pages.error.code == "context_length_exceeded"
        assert "the model reads 512" in pages.error.message
        return
    assert pages.error is None
    assert pages.output is not None
    assert pages.note.startswith("cut to 512" if overflow == "truncate" else "read in ")
    (cut,) = client.items.infer(model, [PAGES[:6000]], llmos={"overflow": "truncate"}).data
    if overflow == "truncate":  # the same first tokens
        assert np.allclose(_numbers(cut.output), _numbers(pages.output), atol=1e-5)
    else:
        assert made.prompt_tokens > 100_000


def _numbers(output: Any) -> list[float]:
    return output if isinstance(output[0], float) else [one["score"] for one in output]


def test_the_way_to_a_vector_travels_with_an_upload(
    client: Client, folders: dict[str, Path]
) -> None:
    import torch
    import transformers

    folder = folders["tiny-vectors"]
    model = transformers.BertModel.from_pretrained(folder).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)("a cat", return_tensors="pt")
    with torch.inference_mode():
        first = model(**inputs).last_hidden_state[0, 0].numpy()
    found = np.array(client.items.embed("tiny-vectors", "a cat").vectors[0])
    assert np.allclose(found / np.linalg.norm(found), first / np.linalg.norm(first), atol=1e-5)


@pytest.mark.parametrize("url", ["/v1/embeddings", "/os/v1/infer"])
def test_a_batch_of_items(api: openai.OpenAI, http: httpx.Client, url: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"model": "tiny-vectors", "input": ["a cat", "paris"]},
        {"model": "tiny-vectors", "input": ["a cat", 3]},
        {"model": "nobody", "input": "x"},
    ]
    if url == "/os/v1/infer":
        bodies = [{"model": b["model"], "inputs": b["input"]} for b in bodies[:1]]
        bodies.append({"model": "tiny-seer", "inputs": [{"image": "eA=="}]})
    lines = [
        json.dumps({"custom_id": str(i), "method": "POST", "url": url, "body": body})
        for i, body in enumerate(bodies)
    ]
    pause = threading.Event()
    file = api.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = api.batches.create(
        input_file_id=file.id,
        endpoint=url,
        completion_window="24h",  # type: ignore[arg-type]
    )
    for _ in range(3000):
        if (batch := api.batches.retrieve(batch.id)).status in {"completed", "failed"}:
            break
        pause.wait(POLL_S)
    assert batch.status == "completed", batch
    assert batch.output_file_id is not None
    (line,) = api.files.content(batch.output_file_id).text.splitlines()
    made = json.loads(line)["response"]["body"]
    live = http.post(url, json=bodies[0]).json()
    key = "embedding" if url == "/v1/embeddings" else "output"
    assert [one[key] for one in made["data"]] == [
        pytest.approx(one[key], abs=1e-6) for one in live["data"]
    ]
    assert batch.error_file_id is not None
    errors = api.files.content(batch.error_file_id).text.splitlines()
    assert len(errors) == len(bodies) - 1


@pytest.mark.parametrize(("model", "family"), [("tiny-blip", "blip"), ("tiny-seer", "vit-gpt2")])
def test_openais_client_asks_about_an_image(
    api: openai.OpenAI, folders: dict[str, Path], model: str, family: str
) -> None:
    image = png(40, 30, seed=1)
    wanted = expected(folders[model], family, image, "a cat", max_new_tokens=6)
    create = api.chat.completions.create
    asked: dict[str, Any] = {"model": model, "max_tokens": 6}
    asked["messages"] = [_picture(image, "a cat")]
    whole = create(**asked)
    assert whole.usage is not None
    assert (whole.choices[0].message.content, whole.usage.completion_tokens) == wanted
    chunks = list(create(**asked, stream=True, stream_options={"include_usage": True}))
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(one.delta.content or "" for one in told) == wanted[0]
    ends = [one.finish_reason for one in told if one.finish_reason]
    assert ends == [whole.choices[0].finish_reason]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump() == whole.usage.model_dump()
    for bad in (b"junk", image[:60]):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as raised:
                create(**asked | {"messages": [_picture(bad, "a")], "stream": stream})
            assert (raised.value.code, raised.value.param) == (
                "invalid_request",
                "messages.0.content.1",
            )
    both = asked | {
        "messages": [{"role": "user", "content": [*_picture(image, "a")["content"]] * 2}]
    }
    with pytest.raises(openai.BadRequestError, match="reads one"):
        create(**both)


@pytest.mark.parametrize(("model", "family"), [("tiny-blip", "blip"), ("tiny-seer", "vit-gpt2")])
def test_a_response_about_an_image(
    api: openai.OpenAI, folders: dict[str, Path], model: str, family: str
) -> None:
    """Kept with its image, and gone on from with another."""
    image = png(40, 30, seed=1)
    said, num_tokens = expected(folders[model], family, image, "a cat", max_new_tokens=6)
    asked: dict[str, Any] = {"model": model, "max_output_tokens": 6}
    whole = api.responses.create(**asked, input=[_seen(image, "a cat")])
    assert whole.usage is not None
    assert (whole.output_text, whole.usage.output_tokens) == (said, num_tokens)
    events = list(api.responses.create(**asked, input=[_seen(image, "a cat")], stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == said
    assert events[-1].type == f"response.{whole.status}"
    other = png(30, 40, seed=2)
    after = api.responses.create(
        **asked, input=[_seen(other, "a dog")], previous_response_id=whole.id
    )
    kept = api.responses.retrieve(after.id)
    assert kept.output_text == after.output_text
    assert kept.output_text == expected(folders[model], family, other, "a dog", max_new_tokens=6)[0]
    with pytest.raises(openai.BadRequestError) as raised:
        api.responses.create(**asked, input=[_seen(b"junk", "a")])
    assert (raised.value.code, raised.value.param) == ("invalid_request", "input.0.content.1")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ]
    for more, name in refused:  # of the model's kind, before what its driver has no words for
        with pytest.raises(openai.BadRequestError) as raised:
            api.responses.create(**asked, **more, input=[_seen(image, "a cat")])
        assert (raised.value.code, raised.value.param) == ("unsupported_parameter", name)
    failed = list(api.responses.create(**asked, input=[_seen(b"junk", "a")], stream=True))[-1]
    assert failed.type == "response.failed"
    with pytest.raises(openai.BadRequestError) as raised:
        api.responses.create(**asked, input=[_seen(image, "a")], temperature=0.7)
    assert raised.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as raised:
        api.responses.create(**asked | {"max_output_tokens": 1 << 20}, input=[_seen(image, "a")])
    assert raised.value.param == "max_output_tokens"
    with pytest.raises(openai.BadRequestError, match="image-to-text"):
        api.responses.create(model=model, input="no image")


def _seen(image: bytes, said: str) -> Any:
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    seen = {"type": "input_image", "image_url": url, "detail": "auto"}
    return {"role": "user", "content": [{"type": "input_text", "text": said}, seen]}


def _picture(image: bytes, said: str) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    text = {"type": "text", "text": said}
    return {"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": url}}]}


def test_a_model_that_reads_text_only_names_the_part(http: httpx.Client) -> None:
    url = "data:image/png;base64," + base64.b64encode(png(8, 8)).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]
    body = {"model": "pilot", "messages": [{"role": "user", "content": content}]}
    answer = http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_parameter"), error
    assert error["param"] == "messages.0.content.0.type"
