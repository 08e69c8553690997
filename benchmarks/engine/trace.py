"""A recorded trace replayed: arrivals as recorded but stretched to a rate, lengths as recorded.

The shape is Azure's: TIMESTAMP, ContextTokens, GeneratedTokens. What does not fit the context is
cut. Latencies count from when a request was due.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import models
from benchmarks.engine import runs, sides
from benchmarks.engine.options import Context
from benchmarks.engine.peers.protocol import Request
from benchmarks.engine.sides import Prompts
from benchmarks.sched.arrivals import TraceEntry, read_trace

CONTEXT_TOKENS = 8192
PEERS = ("openvino", "vllm")
FIGURES = {
    "TTFT p50": ("s", True),
    "TTFT p99": ("s", True),
    "between tokens p99": ("s", True),
    "tokens": ("tokens/s", False),
}


def measure(context: Context) -> None:
    """One replay per engine and repetition, on the first model, in bf16."""
    if context.trace is None:
        print("trace: left out without --trace FILE.csv", flush=True)
        return
    model = context.models[0]
    load = context.load(model, "bf16", CONTEXT_TOKENS)
    prompts = Prompts(models.SHAPES[load.model].vocab_size)
    entries = scaled(read_trace(context.trace), context.trace_requests, context.trace_rate)
    peers = [peer for peer in context.peers if peer.name in PEERS]
    name = f"{model} bf16, {Path(context.trace).stem}"
    with sides.opened(load, peers, context.report) as running:
        sides.in_turn(
            running,
            width=1,
            repetitions=context.repetitions if context.full else 1,
            draw=lambda wanted: _requests(entries[:1] if wanted else entries, prompts),
            read=lambda token_s: read(token_s, entries, name),
            report=context.report,
        )
        for figure, (unit, lower_is_better) in FIGURES.items():
            for row in sides.rows(running, f"{name}: {figure}", unit, lower_is_better):
                context.result.add(row)


def scaled(entries: list[TraceEntry], count: int, rate: float) -> list[TraceEntry]:
    """The first `count`, their times stretched to `rate` requests per second, cut to fit."""
    taken = entries[:count]
    span_s = (taken[-1].due_s - taken[0].due_s) or 1.0
    factor = (len(taken) - 1) / rate / span_s
    made = []
    for entry in taken:
        output = max(2, min(entry.output_tokens, CONTEXT_TOKENS // 2))
        prompt = max(1, min(entry.prompt_tokens, CONTEXT_TOKENS - output))
        made.append(TraceEntry((entry.due_s - taken[0].due_s) * factor, prompt, output))
    return made


def _requests(entries: list[TraceEntry], prompts: Prompts) -> list[Request]:
    return [Request(prompts.draw(e.prompt_tokens), e.output_tokens, e.due_s) for e in entries]


def read(token_s: sides.Tokens, entries: list[TraceEntry], name: str) -> dict[str, float]:
    """The figures of one replay."""
    due_s = [entry.due_s for entry in entries]
    took_s = max(times[-1] for times in token_s)
    return {
        f"{name}: TTFT p50": runs.ttft(token_s, 0.5, due_s),
        f"{name}: TTFT p99": runs.ttft(token_s, 0.99, due_s),
        f"{name}: between tokens p99": runs.inter_token(token_s),
        f"{name}: tokens": sum(map(len, token_s)) / took_s,
    }
