"""A shared prefix of 1,000 tokens: time to first token of the first, the second turn, a stranger.

Each repetition has a prefix of its own. The stranger asks with another salt, which must not hit.
"""

from __future__ import annotations

import time

from benchmarks import models
from benchmarks.engine import ours, runs
from benchmarks.engine.environments import Absent
from benchmarks.engine.options import Context
from benchmarks.engine.ours import Ours
from benchmarks.engine.peers.protocol import Request
from benchmarks.engine.sides import PAUSE_S, Prompts
from benchmarks.harness import paired

PREFIX_TOKENS = 1000
TAIL_TOKENS = 24
NUM_NEW = 8
CONTEXT_TOKENS = 2048
STRANGER = "stranger"
LEAST_REPETITIONS = 5


def measure(context: Context) -> None:
    """On ours, in bf16."""
    for model in context.models:
        load = context.load(model, "bf16", CONTEXT_TOKENS)
        prompts = Prompts(models.SHAPES[load.model].vocab_size)
        try:
            with ours.start(load) as engine:
                _model(context, model, engine, prompts)
        except Absent as error:
            context.report(f"{model}: no figures of a shared prefix: {error}")


def _model(context: Context, model: str, engine: Ours, prompts: Prompts) -> None:
    _ttft_s(engine, prompts.draw(PREFIX_TOKENS), prompts)
    first, second, stranger = [], [], []
    for _ in range(max(LEAST_REPETITIONS, context.repetitions)):
        prefix = prompts.draw(PREFIX_TOKENS)
        first.append(_ttft_s(engine, prefix, prompts))
        second.append(_ttft_s(engine, prefix, prompts))
        stranger.append(_ttft_s(engine, prefix, prompts, STRANGER))
    figure = f"{model} bf16: TTFT, prefix of 1,000 tokens"
    context.result.add(paired(f"{figure}, first turn", "s", first, "second turn", second))
    context.result.add(paired(f"{figure}, another's salt", "s", stranger, "first turn", first))


def _ttft_s(engine: Ours, prefix: list[int], prompts: Prompts, salt: str | None = None) -> float:
    """With a tail that was never asked before."""
    time.sleep(PAUSE_S)
    return runs.ttft(engine.run([Request(prefix + prompts.draw(TAIL_TOKENS), NUM_NEW)], salt))
