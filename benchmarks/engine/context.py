"""One stream at lengths up to 8k: the cost of a token after it, and of reading it."""

from __future__ import annotations

from benchmarks import models
from benchmarks.engine import runs, sides
from benchmarks.engine.options import Context
from benchmarks.engine.sides import Prompts

LENGTHS = (128, 1024, 2048, 4096, 8000)
NUM_NEW = 48
CONTEXT_TOKENS = 8192
PEERS = ("openvino", "vllm", "llama")


def measure(context: Context) -> None:
    """In bf16; the larger model alone unless in full."""
    chosen = context.models if context.full else context.models[:1]
    for model in chosen:
        load = context.load(model, "bf16", CONTEXT_TOKENS)
        prompts = Prompts(models.SHAPES[load.model].vocab_size)
        peers = [peer for peer in context.peers if peer.name in PEERS]
        with sides.opened(load, peers, context.report) as running:
            for length in LENGTHS:
                _length(context, running, model, length, prompts)


def _length(
    context: Context, running: list[sides.Side], model: str, length: int, prompts: Prompts
) -> None:
    cost = f"{model} bf16, one stream after {length}: cost per token"
    prefill = f"{model} bf16, one prompt of {length}: prefill"

    def read(token_s: sides.Tokens) -> dict[str, float]:
        return {
            cost: 1000 / runs.decode_rate(token_s),
            prefill: runs.prefill_rate(token_s, length),
        }

    sides.in_turn(
        running,
        width=1,
        repetitions=context.repetitions if context.full else 1,
        draw=lambda wanted: prompts.requests(1, 128 if wanted else length, wanted or NUM_NEW),
        read=read,
        report=context.report,
    )
    for figure, unit, lower_is_better in ((cost, "ms", True), (prefill, "tokens/s", False)):
        for row in sides.rows(running, figure, unit, lower_is_better):
            context.result.add(row)
    for side in running:
        if values := side.kept.get(cost):
            at = f"{model} bf16: ms per token by context length"
            context.keep(at, side.title, length, sides.middle(values))
