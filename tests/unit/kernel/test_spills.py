"""Files beside the messages: one a request, gone when it has ended."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path

import pytest

from llmos.abi import worker as msg
from llmos.abi.inference import Prepared, PrepareItem, TextPrompt
from llmos.errors import InvalidRequest
from llmos.kernel.spills import Spills
from llmos.kernel.tokenizer import Tokenizer


def test_a_file_goes_once(tmp_path: Path) -> None:
    spills = Spills(tmp_path)
    path = Path(spills.path("req_1"))
    path.write_bytes(b"pixels")
    assert path.parent == tmp_path
    spills.discard("req_1")
    spills.discard("req_1")
    assert not path.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_what_nobody_waits_for_any_more_leaves_no_file(tmp_path: Path, fails: bool) -> None:
    """The preparer was at work when its request was given up; it may fail after some of it."""

    async def main() -> None:
        spills = Spills(tmp_path)
        tokenizer = Tokenizer(30.0, discard=spills.discard)
        item = PrepareItem("req_1", "e", "f", TextPrompt("x"), 8, spill=spills.path("req_1"))
        asking = asyncio.ensure_future(tokenizer.prepare(item))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        made = Prepared("req_1", array("i", [1]).tobytes(), 1, spill=item.spill)
        result: msg.PrepareSuccess | msg.PrepareFailure = msg.PrepareSuccess(made)
        if fails:
            result = msg.PrepareFailure("req_1", InvalidRequest("no image").to_info())
        tokenizer.answered(msg.PrepareResults([result]))

    late = Path(Spills(tmp_path).path("req_1"))
    late.write_bytes(b"pixels")
    asyncio.run(main())
    assert not late.exists()
