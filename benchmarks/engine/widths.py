"""Decode, prefill, time to first token and between tokens at several widths, by precision class.

All figures of a width are read off the same runs: every prompt is sent at once, prefill is the
prompts' tokens over the time to the last first token, decode is counted while all streams decode.
"""

from __future__ import annotations

from benchmarks import models
from benchmarks.engine import bandwidth, runs, sides
from benchmarks.engine.options import PROMPT_TOKENS, WARM_UP_TOKENS, Context
from benchmarks.engine.sides import OURS, Prompts, Side
from benchmarks.harness import paired, single

CONTEXT_TOKENS = 1024
FIGURES = {
    "decode": ("tokens/s", False),
    "prefill": ("tokens/s", False),
    "TTFT p50": ("s", True),
    "between tokens p99": ("s", True),
}
"""Unit, and whether lower is better."""


def measure(context: Context) -> None:
    """Each class of each model: its engines side by side."""
    for model in context.models:
        for precision in context.precisions:
            _class(context, model, precision)


def _class(context: Context, model: str, precision: str) -> None:
    load = context.load(model, precision, CONTEXT_TOKENS)
    prompts = Prompts(models.SHAPES[load.model].vocab_size)
    bytes_per_s = bandwidth.measure(context.num_threads)
    name = f"{model} {precision}"
    with sides.opened(load, context.peers, context.report) as running:
        for width in context.widths_of(model):
            _width(context, running, width, prompts, f"{name}, {width} streams")
        if 1 in context.widths:
            count = bandwidth.weights_per_token(models.folder(load.model))
            bound = bandwidth.bound(count, precision, bytes_per_s)
            threads = f"{context.num_threads} threads"
            row = single(f"{name}: memory reads, {threads}", "GB/s", [bytes_per_s / 1e9])
            context.result.add(row)
            _bound(context, running, name, bound)


def _width(context: Context, running: list[Side], width: int, prompts: Prompts, name: str) -> None:
    num_new = context.num_new(width)
    warm_up = PROMPT_TOKENS if width == context.widths[0] else WARM_UP_TOKENS
    sides.in_turn(
        running,
        width=width,
        repetitions=context.repetitions,
        draw=lambda wanted: prompts.requests(
            width, warm_up if wanted else PROMPT_TOKENS, wanted or num_new
        ),
        read=lambda token_s: read(token_s, name),
        report=context.report,
    )
    for figure, (unit, lower_is_better) in FIGURES.items():
        for row in sides.rows(running, f"{name}: {figure}", unit, lower_is_better):
            context.result.add(row)
        for side in running:
            if values := side.kept.get(f"{name}: {figure}"):
                title = name.partition(",")[0]
                at = f"{title}: {figure} ({unit})"
                context.keep(at, side.title, width, sides.middle(values))


def read(token_s: sides.Tokens, name: str) -> dict[str, float]:
    """The figures of one run."""
    return {
        f"{name}: decode": runs.decode_rate(token_s),
        f"{name}: prefill": runs.prefill_rate(token_s, PROMPT_TOKENS),
        f"{name}: TTFT p50": runs.ttft(token_s),
        f"{name}: between tokens p99": runs.inter_token(token_s),
    }


def _bound(context: Context, running: list[Side], name: str, bound: float) -> None:
    """One stream's tokens per second as a part of what the memory allows."""
    context.result.add(single(f"{name}: bound of one stream", "tokens/s", [bound]))
    kept = [(side.title, side.kept.get(f"{name}, 1 streams: decode")) for side in running]
    shares = {title: [value / bound for value in values] for title, values in kept if values}
    mine = shares.pop(OURS, None)
    if mine is None:
        return
    what = f"{name}: one stream's part of the bound"
    if not shares:
        context.result.add(single(what, "of 1", mine))
        return
    best = max(shares, key=lambda title: sides.middle(shares[title]))
    context.result.add(paired(what, "of 1", mine, f"{best} (best)", shares[best]))
