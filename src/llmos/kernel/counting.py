"""What metrics are told of a request that has ended, or was refused."""

from __future__ import annotations

import time

from llmos.abi.events import Failed, Finished, Terminal
from llmos.abi.inference import GENERATE, UNBOUNDED
from llmos.errors import ErrorInfo, QueueFull, QuotaExceeded
from llmos.kernel.process import Process
from llmos.telemetry.metrics import Metrics
from llmos.telemetry.traced import PROVIDER

_OPERATIONS = {"completions": "text_completion"}
_REJECTIONS = frozenset({QueueFull.code, QuotaExceeded.code})


def operation_of(process: Process) -> str:
    """OpenTelemetry's `gen_ai.operation.name`: theirs for generating, else our kind."""
    if process.kind == GENERATE:
        return _OPERATIONS.get(process.body.route, "chat")
    return process.kind


def error_of(event: Terminal) -> str:
    """OpenTelemetry's `error.type`; empty for what is no error."""
    if isinstance(event, Failed):
        return event.error.code
    return "" if isinstance(event, Finished) else "aborted"


def count_refusal(metrics: Metrics, process: Process, error: ErrorInfo) -> None:
    """It never was the core's, or the core would not have it."""
    metrics.refusals.labels(error.code).inc()
    if error.code in _REJECTIONS:
        metrics.rejections.labels(process.version.ref, error.code).inc()


def count_end(metrics: Metrics, process: Process, event: Terminal, cost_error: float) -> None:
    """Once a request. `cost_error` is the model's, of its predictions."""
    name, usage = process.version.ref, event.usage
    lived_s = (time.monotonic_ns() - process.created_mono) / 1e9
    metrics.e2e.labels(name).observe(lived_s)
    prompt = process.prepared.num_tokens if process.prepared else 0
    metrics.prompt_tokens.labels(name).inc(prompt)
    metrics.generation_tokens.labels(name).inc(process.num_tokens)
    # a driver counts what it was given: one that no worker had is not counted as a miss
    metrics.prefix_queries.labels(name).inc(usage.prompt_tokens)
    metrics.prefix_hits.labels(name).inc(usage.cached_tokens)
    metrics.cached_tokens.labels(name).inc(usage.cached_tokens)
    metrics.tokens_by_source.labels(name, "local_cache_hit").inc(usage.cached_tokens)
    computed = max(0, usage.prompt_tokens - usage.cached_tokens)
    metrics.tokens_by_source.labels(name, "local_compute").inc(computed)
    labels = (operation_of(process), PROVIDER, process.body.model, name)
    metrics.gen_ai_duration.labels(*labels, error_of(event)).observe(lived_s)
    if isinstance(event, Finished):
        metrics.cost_error.labels(name).set(cost_error)
        metrics.success.labels(name, event.reason).inc()
        metrics.prompt_size.labels(name).observe(usage.prompt_tokens)
        metrics.answer_size.labels(name).observe(usage.completion_tokens)
        metrics.computed_size.labels(name).observe(computed)
        _count_finished(metrics, process, labels)
    elif isinstance(event, Failed):
        metrics.failures.labels(name, event.error.code).inc()
    else:
        metrics.success.labels(name, "abort").inc()


def _count_finished(metrics: Metrics, process: Process, labels: tuple[str, ...]) -> None:
    name, now_mono = process.version.ref, time.monotonic_ns()
    metrics.inference_time.labels(name).observe((now_mono - process.started_mono) / 1e9)
    metrics.preempted.labels(name).observe(process.num_preemptions)
    metrics.choices.labels(name).observe(1)
    metrics.most_tokens.labels(name).observe(process.num_tokens)
    if process.body.sampling.max_tokens != UNBOUNDED:
        metrics.wanted_tokens.labels(name).observe(process.body.sampling.max_tokens)
    first_mono = process.first_token_mono
    if not first_mono:
        return
    metrics.prefill_time.labels(name).observe((first_mono - process.started_mono) / 1e9)
    metrics.gen_ai_first.labels(*labels).observe((first_mono - process.created_mono) / 1e9)
    if process.num_tokens > 1:
        decode_s = max(0, process.last_token_mono - first_mono) / 1e9
        metrics.decode_time.labels(name).observe(decode_s)
        metrics.token_time.labels(name).observe(decode_s / (process.num_tokens - 1))
        metrics.gen_ai_token.labels(*labels).observe(decode_s / (process.num_tokens - 1))
