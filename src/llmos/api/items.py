"""Work that is answered item by item: submit it, wait for every item, say how it ran."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llmos.abi.events import ItemOutput, Outputs
from llmos.abi.program import Generate
from llmos.api.call import Call
from llmos.api.infer import Outcome, finished, report, submitted
from llmos.api.streams import InferStream
from llmos.shapes.kinds import Made


async def answered(call: Call, wish: Generate) -> tuple[Made, str]:
    """What came of all its items, by index, and what kind of work it was.

    Raises what the request was refused with, or failed with; an item's error is its own.
    """
    async with submitted(call, [wish]) as streams:
        stream = streams[0]
        outputs, outcome = await _collect(stream)
        made = Made(stream.accepted, outputs, outcome.end.usage, report(call, stream, outcome))
        return made, stream.accepted.kind


async def _collect(stream: InferStream) -> tuple[Sequence[ItemOutput], Outcome]:
    outcome = Outcome(accepted_s=time.perf_counter())
    outputs: list[ItemOutput] = []
    async for batch in stream:
        for event in batch:
            if type(event) is Outputs:
                if outcome.first_s is None:
                    outcome.first_s = time.perf_counter()
                outputs += event.items
            else:
                outcome.finished = finished(event)
    outputs.sort(key=lambda output: output.index)
    return outputs, outcome
