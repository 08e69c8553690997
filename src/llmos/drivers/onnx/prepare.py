"""The preparers of ONNX models: those of texts as for any encoder, recordings as samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmos.abi.driver import Preparer
from llmos.abi.inference import ItemsPrompt, Prepared, PrepareItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.params import convert
from llmos.drivers.encoder.payload import Item, Payload, Row
from llmos.drivers.onnx.sound import MAX_BYTES, read_sound
from llmos.drivers.onnx.speech import Speech
from llmos.errors import InvalidRequest, LLMOSError

SAMPLES_PER_TOKEN = 320
"""20 ms: what a recording counts for, in queues and shares."""


class SpeechPreparer:
    """Recordings, each a WAV file; their samples are spilled into a file of the request's own."""

    def prepare(self, item: PrepareItem) -> Prepared:
        """Raises InvalidRequest for what holds of all of them."""
        prompt = item.prompt
        if not isinstance(prompt, ItemsPrompt):
            raise InvalidRequest(f"this model is for {item.kind}", param="model")
        if not prompt.items:
            raise InvalidRequest("there are no items", param="inputs")
        params: Speech = convert(prompt.params, Speech, "params")
        with Path(item.spill).open("wb") as spill:
            items = [self._read(i, one, prompt, spill) for i, one in enumerate(prompt.items)]
        cost = sum(row.cost for one in items for row in one.rows)
        plain = {name: getattr(params, name) for name in params.__struct_fields__}
        packed = payload.encode(Payload(items, plain))
        return Prepared(item.request_id, b"", max(1, cost), payload=packed, spill=item.spill)

    def _read(self, index: int, one: Any, prompt: ItemsPrompt, spill: Any) -> Item:
        try:
            samples = read_sound(_bytes(one, prompt))
        except LLMOSError as error:
            return Item(index, error=error.to_info())
        start = spill.tell() // 4
        spill.write(samples.astype("<f4").tobytes())
        cost = 1 + len(samples) // SAMPLES_PER_TOKEN
        return Item(index, [Row(cost, start=start, shape=[len(samples)])])


def _bytes(one: Any, prompt: ItemsPrompt) -> bytes:
    number = one.get("blob") if isinstance(one, dict) and len(one) == 1 else None
    if not isinstance(number, int) or not 0 <= number < len(prompt.blobs):
        raise InvalidRequest('an item is {"audio": BASE64}, a WAV file', param="inputs")
    path = prompt.blobs[number].path
    assert path is not None
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def make(folder: str) -> Preparer:
    """The Preparer's entry."""
    config = Path(folder) / "config.json"
    if not config.is_file():
        return SpeechPreparer()
    return _make_texts()(folder)


def _make_texts() -> Callable[[str], Preparer]:
    from llmos.drivers.encoder.prepare import make as make_texts

    return make_texts
