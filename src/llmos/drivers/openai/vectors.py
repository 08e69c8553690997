"""Embeddings of a remote model: texts there, vectors back. One request for all items."""

from __future__ import annotations

import json
from array import array
from typing import Any

import msgspec

from llmos.abi.events import FinishReason, ItemOutput, Logprobs
from llmos.abi.inference import ItemsPrompt, Usage
from llmos.drivers.openai.answer import count_usage
from llmos.drivers.openai.faults import Fault, failed, of_event
from llmos.errors import InvalidRequest

KIND = "embeddings"
PATH = "/embeddings"
MAX_ITEMS = 2048

_KNOWN = frozenset({"dimensions", "normalize", "pooling", "overflow", "stride"})


class Wanted(msgspec.Struct, frozen=True):
    """What the driver is given. `inputs` are texts, or lists of the remote's own token ids."""

    inputs: list[Any]
    dimensions: int | None = None


def read_wanted(prompt: ItemsPrompt) -> Wanted:
    """Raises InvalidRequest: the remote takes all of it, or nothing."""
    if not 0 < len(prompt.items) <= MAX_ITEMS:
        raise InvalidRequest(f"1 to {MAX_ITEMS} inputs, not {len(prompt.items)}", param="inputs")
    for name, value in prompt.params.items():
        if value is not None and (name not in _KNOWN or name != "dimensions"):
            raise InvalidRequest(f"a remote model has no {name[:80]}", param=f"params.{name[:80]}")
    dimensions = prompt.params.get("dimensions")
    if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
        raise InvalidRequest("dimensions is a number from 1 on", param="params.dimensions")
    return Wanted([_text(one) for one in prompt.items], dimensions)


def _text(one: Any) -> Any:
    if isinstance(one, dict) and set(one) == {"text"}:
        one = one["text"]
    if isinstance(one, str) and one:
        return one
    if isinstance(one, list) and one and all(type(i) is int and 0 <= i < 1 << 31 for i in one):
        return one
    raise InvalidRequest("an input is a text or a list of token ids, not empty", param="inputs")


def num_chars(wanted: Wanted) -> int:
    """Of all texts; of ids, their number."""
    return sum(len(one) for one in wanted.inputs)


def make_vectors_body(wanted: Wanted) -> dict[str, Any]:
    """OpenAI's, but for the model's name."""
    body: dict[str, Any] = {"input": wanted.inputs, "encoding_format": "float"}
    if wanted.dimensions is not None:
        body["dimensions"] = wanted.dimensions
    return body


class Vectors:
    """The answer, as `Answer` is of text: it is never a stream."""

    def __init__(self, host: str, secrets: list[str], num_items: int) -> None:
        self._host = host
        self._secrets = secrets
        self._num_items = num_items
        self.reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.stop: str | int | None = None
        self.outputs: list[ItemOutput] = []

    def has_ended(self) -> bool:
        """As of `Answer`."""
        return self.reason is not None

    def take_logprobs(self) -> list[Logprobs]:
        """Of vectors there are none."""
        return []

    def take(self, data: bytes) -> str:
        """Not: see `take_whole`. Raises Fault."""
        raise Fault(failed("broken", self._host, "sent a stream where there is none"))

    def take_whole(self, data: bytes) -> str:
        """No text. Raises Fault."""
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise Fault(failed("broken", self._host, "sent what is no JSON")) from None
        if isinstance(found, dict) and found.get("error"):
            raise of_event(found["error"], self._host, self._secrets)
        try:
            vectors = {int(one["index"]): _pack(one["embedding"]) for one in found["data"]}
        except (TypeError, KeyError, ValueError, OverflowError):
            raise Fault(failed("broken", self._host, "sent what are no vectors")) from None
        if set(vectors) != set(range(self._num_items)) or not all(vectors.values()):
            what = f"sent {len(vectors)} vectors for {self._num_items} inputs"
            raise Fault(failed("broken", self._host, what))
        self.usage = count_usage(found.get("usage"))
        self.outputs = [ItemOutput(i, data=vectors[i]) for i in range(self._num_items)]
        self.reason = FinishReason.STOP
        return ""


def _pack(vector: list[float]) -> bytes:
    return array("f", vector).tobytes()
