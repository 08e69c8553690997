"""Items to rows, in the tokenizer worker. Torch-free.

What is wrong with one item becomes its error, and the others go on; what is wrong with the
parameters refuses the request.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmos.abi.inference import ItemsPrompt, Prepared, PrepareItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.params import read_params
from llmos.drivers.encoder.payload import Item, Payload
from llmos.drivers.encoder.readers import make_readers
from llmos.drivers.encoder.rows import Asked, Reader
from llmos.errors import EngineFailed, InvalidRequest, LLMOSError, PayloadTooLarge

__all__ = ["EncoderPreparer", "make"]


def make(folder: str) -> EncoderPreparer:
    """The entry named by `ModelVersion.prepare`. Raises ModelRejected."""
    return EncoderPreparer(Path(folder))


class EncoderPreparer:
    """Behind `abi.Preparer`, for one model folder."""

    def __init__(self, folder: Path) -> None:
        self._readers: dict[str, Callable[[], Reader]] = make_readers(folder)
        self._made: dict[str, Reader] = {}

    def prepare(self, item: PrepareItem) -> Prepared:
        """Raises InvalidRequest and its kinds for what holds of all items."""
        prompt = item.prompt
        if not isinstance(prompt, ItemsPrompt):
            raise InvalidRequest(
                f"this model does not generate; it is for {item.kind}", param="model"
            )
        if not prompt.items:
            raise InvalidRequest("there are no items", param="inputs")
        params = read_params(item.kind, prompt.params)
        reader = self._reader(item.kind)
        asked = Asked(prompt.items, params, prompt.blobs, item.context_length, item.spill)
        items = [_item(i, one) for i, one in enumerate(reader(asked))]
        cost = sum(row.cost for one in items for row in one.rows)
        packed = payload.encode(Payload(items, _plain(params)))
        num_rows = sum(len(one.rows) for one in items)
        if num_rows > LIMITS.num_rows or len(packed) > LIMITS.payload_bytes:
            text = f"the inputs are {num_rows} rows of {len(packed)} bytes: send fewer at once"
            raise PayloadTooLarge(text, param="inputs")
        return Prepared(item.request_id, b"", max(1, cost), payload=packed, spill=asked.spilled)

    def _reader(self, kind: str) -> Reader:
        if kind not in self._made:
            if kind not in self._readers:
                raise EngineFailed(f"nothing here prepares {kind[:40]}")
            self._made[kind] = self._readers[kind]()
        return self._made[kind]


def _item(index: int, made: Item | Exception) -> Item:
    if isinstance(made, LLMOSError):
        return Item(index, error=made.to_info())
    if isinstance(made, Exception):
        raise made
    return Item(index, made.rows, made.about, made.note)


def _plain(params: Any) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params.__struct_fields__}
