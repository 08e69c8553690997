"""How tokens are drawn, in the engine's words."""

from __future__ import annotations

from typing import Any

from llmos.abi.inference import Sampling
from llmos.drivers.openvino.library import library
from llmos.drivers.openvino.limits import MAX_PENALTY
from llmos.drivers.sampling.params import GREEDY_BELOW
from llmos.errors import InvalidRequest


def check_range(sampling: Sampling) -> None:
    """Raises InvalidRequest for what only this engine does not take."""
    for name in ("frequency_penalty", "presence_penalty"):
        if abs(getattr(sampling, name)) > MAX_PENALTY:
            raise InvalidRequest(
                f"{name} must be between -{MAX_PENALTY} and {MAX_PENALTY} with this model",
                param=name,
            )


def to_config(sampling: Sampling, num_new: int, seed: int) -> Any:
    """A `GenerationConfig`. What ends an answer before that is not the engine's to know."""
    _, genai = library()
    config = genai.GenerationConfig()
    config.max_new_tokens = num_new
    config.ignore_eos = True
    config.frequency_penalty = sampling.frequency_penalty
    config.presence_penalty = sampling.presence_penalty
    config.repetition_penalty = sampling.repetition_penalty
    config.do_sample = sampling.temperature >= GREEDY_BELOW
    if config.do_sample:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        config.min_p = sampling.min_p
        config.rng_seed = seed
        if sampling.top_k:
            config.top_k = sampling.top_k
    return config
