"""OpenAI's client sends images: to models here, and through here to a model elsewhere."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llmos.sdk import Client
from tests.contract.vision.test_seeing import IMAGES, MAX_NEW, Said, Theirs
from tests.system.server import POLL_S, Server
from tests.unit.drivers.vision.folders import make_seeing

SAID: Said = ["tall", "and", "wide", " differ how?"]
SYSTEM = {"role": "system", "content": "see"}
EXACT = {"ignore_eos": True, "return_token_ids": True}
MODELS = {
    "tiny-llava": "llava",
    "tiny-qwen": "qwen2-vl",
    "tiny-qwen-3": "qwen3-vl",
    "tiny-smol": "smolvlm",
}


def url_of(name: str) -> str:
    return "data:image/png;base64," + base64.b64encode(IMAGES[name]).decode()


def chat(said: Said) -> list[dict[str, Any]]:
    parts = [
        {"type": "image_url", "image_url": {"url": url_of(word)}}
        if word in IMAGES
        else {"type": "text", "text": word}
        for word in said
    ]
    return [SYSTEM, {"role": "user", "content": parts}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sight")
    return {name: make_seeing(root / name, family) for name, family in MODELS.items()}


@pytest.fixture(scope="module")
def there(server: Server, folders: dict[str, Path]) -> Server:
    with Client(server.url, api_key=server.token) as client:
        for name, folder in folders.items():
            assert client.models.pull(f"file:{folder}", name).ref == f"{name}:1"
    return server


@pytest.fixture(scope="module")
def here(there: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("near") / "home", env={"FAR_API_KEY": there.token})
    try:
        made.start()
        end = {"url": f"{there.url}/v1", "model": "tiny-llava", "key": "FAR_API_KEY"}
        body = {"source": f"openai:{there.url}/v1#tiny-llava", "name": "far"}
        with made.client() as client:
            remote = {"endpoints": [end], "extensions": True}
            done = client.post("/os/v1/models", json=body | {"remote": remote})
        assert "event: done" in done.text
        yield made
    finally:
        made.kill()


@pytest.fixture
def api(there: Server) -> Iterator[openai.OpenAI]:
    with there.openai(timeout=90.0) as made:
        yield made


def ask(api: openai.OpenAI, model: str, messages: Any, **fields: Any) -> Any:
    fields = {"max_tokens": MAX_NEW, "temperature": 0} | fields
    return api.chat.completions.create(model=model, messages=messages, extra_body=EXACT, **fields)


@pytest.mark.parametrize("model", MODELS)
def test_it_says_what_generate_says(
    api: openai.OpenAI, folders: dict[str, Path], model: str
) -> None:
    theirs = Theirs(folders[model])
    tokens = theirs.tokens(SAID)
    whole = ask(api, model, chat(SAID))
    assert whole.choices[0].token_ids == theirs.generate(SAID, tokens)
    assert whole.usage.prompt_tokens == len(tokens)
    chunks = list(ask(api, model, chat(SAID), stream=True))
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    ids = [getattr(one, "token_ids", None) or [] for one in told]
    assert [i for some in ids for i in some] == whole.choices[0].token_ids
    assert "".join(one.delta.content or "" for one in told) == whole.choices[0].message.content
    assert len([some for some in ids if some]) > 1  # as it is made
    assert [one.finish_reason for one in told if one.finish_reason] == ["length"]


def test_nothing_of_an_image_is_left(there: Server, api: openai.OpenAI) -> None:
    """Neither of an answer nor of one that its client leaves."""
    ask(api, "tiny-llava", chat(SAID))
    with ask(api, "tiny-llava", chat(SAID), stream=True, max_tokens=100) as left:
        next(iter(left))
    deadline = time.monotonic() + 30
    scratch, uploads = there.home / "scratch", there.home / "uploads"
    while found := [*scratch.glob("spill-*"), *uploads.iterdir()]:
        assert time.monotonic() < deadline, found
        time.sleep(POLL_S)


def test_a_response_about_an_image(api: openai.OpenAI) -> None:
    whole = ask(api, "tiny-llava", chat(SAID)).choices[0].message.content
    parts: list[Any] = [
        {"type": "input_image", "image_url": url_of(word), "detail": "auto"}
        if word in IMAGES
        else {"type": "input_text", "text": word}
        for word in SAID
    ]
    asked: dict[str, Any] = {"model": "tiny-llava", "temperature": 0, "instructions": "see"}
    asked |= {"input": [{"role": "user", "content": parts}], "max_output_tokens": MAX_NEW}
    asked["extra_body"] = {"ignore_eos": True}
    made = api.responses.create(**asked)
    assert made.output_text == whole
    events = list(api.responses.create(**asked, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole
    with pytest.raises(openai.BadRequestError, match="own word for an image") as refused:
        api.responses.create(**asked | {"input": [*asked["input"], _said("an <image>")]})
    assert refused.value.param == "input.1.content"
    again = asked | {"input": "and now?", "previous_response_id": made.id}
    assert api.responses.create(**again).usage.input_tokens > made.usage.input_tokens  # type: ignore[union-attr]


def _said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_an_image_goes_on_to_a_model_elsewhere(here: Server, api: openai.OpenAI) -> None:
    wanted = ask(api, "tiny-llava", chat(SAID)).choices[0].message.content
    with here.openai(timeout=90.0) as near:
        assert ask_far(near, chat(SAID)).choices[0].message.content == wanted
        told = ask_far(near, chat(SAID), stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in told if c.choices) == wanted
        # a URL is the remote's to fetch: this one refuses, and says so itself
        far = [{"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}]
        with pytest.raises(openai.BadRequestError, match="fetches nothing"):
            ask_far(near, [{"role": "user", "content": far}])


def ask_far(near: openai.OpenAI, messages: Any, **fields: Any) -> Any:
    return near.chat.completions.create(
        model="far",
        messages=messages,
        max_tokens=MAX_NEW,
        temperature=0,
        extra_body={"ignore_eos": True},
        **fields,
    )


def image(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}]


def data(raw: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(raw).decode()


WHERE = "messages.1.content.0"
LLAVA = "tiny-llava"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "content", "role", "param"),
    [
        (LLAVA, image(data(b"junk")), "user", WHERE),
        (LLAVA, image(data(IMAGES["wide"][:70])), "user", WHERE),
        (LLAVA, image("https://a.test/b"), "user", f"{WHERE}.image_url.url"),
        (
            "tiny-llava",
            image(data(b"a", "text/plain")),
            "user",
            f"{WHERE}.image_url.url",
        ),
        (
            "tiny-llava",
            image("data:image/png;base64,?"),
            "user",
            f"{WHERE}.image_url.url",
        ),
        (LLAVA, image(url_of("tall")), "system", WHERE),
        (LLAVA, image(url_of("tall")) * 17, "user", "messages.1.content.16"),
        ("pilot", image(url_of("tall")), "user", f"{WHERE}.type"),
        ("echo", image(url_of("tall")), "user", f"{WHERE}.type"),
    ],
    ids=range(9),
)
def test_bad_images_are_named(
    there: Server, model: str, content: Any, role: str, param: str, stream: bool
) -> None:
    messages = [SYSTEM, {"role": role, "content": content}, {"role": "user", "content": "?"}]
    body = {"model": model, "messages": messages, "stream": stream}
    with there.client(timeout=90.0) as client:
        answer: httpx.Response = client.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
