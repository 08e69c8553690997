"""What a request's stream carries: any number of `Tokens`, or of `Outputs`, then exactly one
terminal event."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from llmos.abi.inference import Usage
from llmos.abi.principal import ServiceClass
from llmos.errors import ErrorInfo


class FinishReason(enum.StrEnum):
    """OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


UNKNOWN_ID = -1
"""Of a token of a model whose vocabulary is elsewhere."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token (its id, or `UNKNOWN_ID`), the bytes it stands for, and its log-probability: natural,
    of the model's own logits, before anything that a request asks of them."""

    token_id: int
    piece: bytes
    logprob: float


class Logprobs(msgspec.Struct, frozen=True, array_like=True):
    """Of one drawn token, and the likeliest ones there, best first."""

    drawn: TokenLogprob
    top: list[TokenLogprob]


class Tokens(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    tag="tok",
    rename={  # one a token: keep it short
        "request_id": "r",
        "token_ids": "i",
        "text": "t",
        "logprobs": "l",
        "counted": "n",
    },
):
    """New tokens of one request in one step, and the text they complete (whole characters only).

    `logprobs` of each token, where they were asked for; of a token that ends the answer and has no
    text there is none.

    `counted`: how many of the model's tokens these are, where `token_ids` are a driver's own, kept
    to go on by: a remote's ids are unknown here. None: as many as there are ids.
    """

    request_id: str
    token_ids: list[int]
    text: str
    logprobs: list[Logprobs] | None = None
    counted: int | None = None

    @property
    def num_tokens(self) -> int:
        """Of the model."""
        return len(self.token_ids) if self.counted is None else self.counted


class ItemOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of item `index`: `value`, JSON as its kind shapes it, or `error`.

    `data`: a vector, float32, little-endian; or bytes that `value` tells the format of. `note` is
    for people: what of the item was left out.
    """

    index: int
    value: Any = None
    data: bytes = b""
    note: str = ""
    error: ErrorInfo | None = None


class Outputs(msgspec.Struct, frozen=True, tag="out"):
    """Items of one request that were answered in one step, in any order, each once."""

    request_id: str
    items: list[ItemOutput]


class Served(msgspec.Struct, frozen=True):
    """How the kernel served a request: until its first row, and how often it was taken since.

    `service_class` is the one that it ended with; None: as it was accepted. Of `num_suspensions`,
    from which it went on by its snapshot, `num_recomputed` had to be computed again.
    """

    queued_s: float
    num_preemptions: int
    service_class: ServiceClass | None = None
    num_suspensions: int = 0
    num_recomputed: int = 0


class Finished(msgspec.Struct, frozen=True, tag="fin"):
    """Terminal: done. `stop` is the stop string or token id that ended it, if one did.

    `deterministic` says in which mode every step of it ran; None from a driver without modes.
    `served` is the kernel's to say, never a driver's. `prompt_logprobs` of each token of the
    prompt, where they were asked for; the first follows nothing, so its own is 0.
    """

    request_id: str
    reason: FinishReason
    usage: Usage
    stop: str | int | None = None
    deterministic: bool | None = None
    served: Served | None = None
    prompt_logprobs: list[Logprobs] | None = None


class Failed(msgspec.Struct, frozen=True, tag="err"):
    """Terminal: it cannot go on."""

    request_id: str
    error: ErrorInfo
    usage: Usage = Usage()


class Aborted(msgspec.Struct, frozen=True, tag="abt"):
    """Terminal: someone ended it (a client that left, an operator)."""

    request_id: str
    reason: str
    usage: Usage = Usage()


Terminal = Finished | Failed | Aborted
Event = Tokens | Outputs | Finished | Failed | Aborted
