"""What may be asked of sampling, and where its chance comes from. Light: no arrays, no engine."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence

from llmos.abi.inference import Sampling
from llmos.errors import InvalidRequest

GREEDY_BELOW = 1e-5
"""A temperature under this is zero: the most likely token, the first one of equals."""

MAX_LOGPROBS = 20
"""Of likeliest tokens that are told of each one."""


class Row:
    """One request's drawing: its parameters, its seed, the tokens its penalties look at.

    All of it follows from the parameters, the seed and the tokens: one that goes on where another
    was is given the seed that was drawn and the tokens `generated`.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        seed: int | None = None,
        generated: Sequence[int] = (),
    ) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature < GREEDY_BELOW
        seed = sampling.seed if seed is None else seed
        self.seed = secrets.randbits(63) if seed is None else seed
        self.penalized = (
            sampling.frequency_penalty != 0
            or sampling.presence_penalty != 0
            or sampling.repetition_penalty != 1
        )
        self._prompt = prompt
        self._generated = list(generated)


def check(sampling: Sampling) -> None:
    """Raises InvalidRequest naming the parameter that is out of range."""
    limits = {
        "temperature": (0.0, math.inf),
        "top_p": (0.0, 1.0),
        "min_p": (0.0, 1.0),
        "top_k": (0, math.inf),
        "frequency_penalty": (-math.inf, math.inf),
        "presence_penalty": (-math.inf, math.inf),
        "repetition_penalty": (0.0, math.inf),
        "max_tokens": (0, math.inf),
    }
    for name, (low, high) in limits.items():
        value = getattr(sampling, name)
        if not math.isfinite(value) or not low <= value <= high:
            raise InvalidRequest(f"{name} is {value}, out of range", param=name)
    for name in ("logprobs", "prompt_logprobs"):
        most = getattr(sampling, name)
        if most is not None and not 0 <= most <= MAX_LOGPROBS:
            raise InvalidRequest(f"{name} is {most}, out of range", param=name)
    for name in ("top_p", "repetition_penalty"):
        if getattr(sampling, name) == 0:
            raise InvalidRequest(f"{name} must be above 0", param=name)


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) that decides a request's token `index`.

    A hash of both, so that the only state of a request's generator is how far it is.
    """
    digest = hashlib.blake2b(b"%d:%d" % (seed, index), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
