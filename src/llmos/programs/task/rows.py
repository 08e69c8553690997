"""What is kept of each input: a line of JSON in one of two streams, its result or its error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.program import Answer
from llmos.abi.tasks import Prices
from llmos.errors import ErrorInfo

DONE = "rows"
FAILED = "errors"
"""The streams."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an input has no result."""

    code: str
    message: str
    param: str | None = None


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input's outcome, and what it took.

    `row` counts from 0. `queued_ms` and `ms` are until the first step and in all, on the server's
    clock; of inputs that were asked together they are those of the whole call, `num_together`.
    `cost` is in US dollars; `at` UTC seconds. `note` is the model's remark, for people.
    """

    row: int
    value: Any = None
    error: Failure | None = None
    model: str = ""
    request_id: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queued_ms: float = 0.0
    ms: float = 0.0
    num_together: int = 1
    cost: float | None = None
    at: float = 0.0
    finish_reason: str = ""
    note: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Kept)


def encode(kept: Kept) -> bytes:
    """A line, without its end."""
    return _encoder.encode(kept)


def read_kept(path: str) -> Iterator[Kept]:
    """Of a gathered stream, by row."""
    with Path(path).open("rb") as file:
        for line in file:
            yield _decoder.decode(line)


def failed(
    row: int,
    error: ErrorInfo,
    answer: Answer | None = None,
    prices: Prices | None = None,
    share: int = 1,
) -> Kept:
    """An outcome without a result; what the answer took is spent all the same."""
    failure = Failure(error.code, error.message, error.param)
    if answer is None:
        return Kept(row, error=failure, at=round(time.time(), 3))
    return msgspec.structs.replace(done(row, None, answer, prices, share), error=failure)


def done(row: int, value: Any, answer: Answer, prices: Prices | None, share: int = 1) -> Kept:
    """A result with what it took; of `share` inputs in one call, its part of the tokens."""
    usage, served = answer.usage, answer.served
    now_ns = time.time_ns()
    return Kept(
        row=row,
        value=value,
        model=answer.model,
        request_id=answer.request_id,
        prompt_tokens=round(usage.prompt_tokens / share),
        completion_tokens=round(usage.completion_tokens / share),
        queued_ms=round(served.queued_s * 1000, 3) if served else 0.0,
        ms=round((now_ns - answer.created_ns) / 1e6, 3) if answer.created_ns else 0.0,
        num_together=share,
        cost=cost_of(answer, prices, share),
        at=round(now_ns / 1e9, 3),
        finish_reason=answer.finish_reason,
    )


def cost_of(answer: Answer, prices: Prices | None, share: int = 1) -> float | None:
    """US dollars: what the driver was charged, else by the task's prices; None: it is free."""
    charged: float | None = getattr(answer.usage, "cost", None)
    if charged is None and prices is not None:
        usage = answer.usage
        charged = usage.prompt_tokens * prices.prompt + usage.completion_tokens * prices.completion
        charged /= 1e6
    return None if charged is None else charged / share
