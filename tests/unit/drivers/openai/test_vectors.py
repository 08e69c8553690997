from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Failed, Finished, Outputs
from llmos.abi.inference import ItemsPrompt, PrepareItem, Sampling, WorkItem
from llmos.errors import InvalidRequest, UnsupportedParameter
from tests.contract.openai.exchanges import error_500
from tests.contract.openai.test_driver import Rig
from tests.unit.drivers.openai.fake_remote import Exchange, FakeRemote

KINDS = {"kinds": ["embeddings"]}


async def embed(exchange: Exchange) -> None:
    """Each text's length, in an order of its own."""
    texts = exchange.body["input"]
    data = [{"index": i, "embedding": [len(text), 0.5]} for i, text in enumerate(texts)]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    body = {"object": "list", "data": data[::-1], "usage": usage}
    await exchange.whole(200, json.dumps(body).encode())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    opened: list[Any] = []

    def make(*scripts: Any) -> tuple[Rig, list[FakeRemote]]:
        remotes = [FakeRemote(script) for script in scripts]
        one = Rig(tmp_path / "m", *(remote.url for remote in remotes), **KINDS)
        opened.extend([one, *remotes])
        return one, remotes

    yield make  # type: ignore[misc]
    for each in opened:
        each.driver.unload() if isinstance(each, Rig) else each.close()


def ask(rig: Rig, items: list[Any], **params: Any) -> None:
    prompt = ItemsPrompt("embeddings", items, params)
    made = rig.preparer.prepare(PrepareItem("a", "", "", prompt, 0, "embeddings"))
    assert made.num_tokens > 0
    rig.events["a"] = []
    rig.driver.submit(WorkItem("a", b"", Sampling(), kind="embeddings", payload=made.payload))


def test_vectors_in_order(rig: Any) -> None:
    one, (remote,) = rig(embed)
    ask(one, ["one", {"text": "three"}, [5, 6]], dimensions=2)
    one.run()
    outputs, last = one.events["a"]
    assert isinstance(outputs, Outputs)
    assert [array("f", item.data).tolist() for item in outputs.items] == [
        [3, 0.5],
        [5, 0.5],
        [2, 0.5],
    ]
    assert isinstance(last, Finished)
    assert last.usage.prompt_tokens == 7
    seen = remote.seen[0]
    assert seen.path == "/v1/embeddings"
    assert (seen.body["input"], seen.body["dimensions"]) == (["one", "three", [5, 6]], 2)


def test_fail_over(rig: Any) -> None:
    one, (bad, good) = rig(error_500, embed)
    ask(one, ["one"])
    one.run()
    assert isinstance(one.end("a"), Finished)
    assert (len(bad.seen), len(good.seen)) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"data": []}',
        b'{"data": [{"index": 1, "embedding": [1]}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": ["x"]}]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}]}',
        b'{"error": {"message": "no"}}',
    ],
)
def test_what_are_no_vectors(rig: Any, answer: bytes) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.whole(200, answer)

    one, _ = rig(odd)
    ask(one, ["one"])
    one.run()
    last = one.end("a")
    assert isinstance(last, Failed)
    assert last.error.code == "remote_failed"


@pytest.mark.parametrize(
    ("items", "params"),
    [
        ([], {}),
        ([""], {}),
        ([5], {}),
        ([{"image": "x"}], {}),
        ([[]], {}),
        ([[-1]], {}),
        (["a"], {"dimensions": 0}),
        (["a"], {"pooling": "cls"}),
        (["a"], {"nonsense": 1}),
    ],
)
def test_bad_input(rig: Any, items: list[Any], params: dict[str, Any]) -> None:
    one, _ = rig(embed)
    with pytest.raises(InvalidRequest):
        ask(one, items, **params)


def test_it_does_not_generate(rig: Any) -> None:
    one, _ = rig(embed)
    with pytest.raises(UnsupportedParameter, match="generate"):
        one.ask("b")
    with pytest.raises(InvalidRequest):
        one.driver.submit(WorkItem("c", b"", Sampling(), kind="embeddings", payload=b"x"))
