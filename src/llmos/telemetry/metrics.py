"""Prometheus metrics: vLLM's names where vLLM has a word, `llmos:*` where it has none."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from llmos.telemetry.histogram import FastHistogram

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_TTFT_LONG_S = (20, 40, 80, 160, 640, 2560)
_ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)
_REQUEST_S = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_WRITE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = tuple(float(1 << bits) for bits in range(14, 36, 2))
_MODEL = "model_name"


class Metrics:
    """All of them, in a registry of their own. Durations in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_requests()
        self._of_memory()
        self._of_jobs()
        self._of_home()

    def _histogram(
        self, name: str, doc: str, bounds: tuple[float, ...], label: str = _MODEL
    ) -> FastHistogram:
        made = FastHistogram(name, doc, label, bounds)
        self.registry.register(made)
        return made

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(name, doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        return Gauge(name, doc, labels, registry=self.registry)

    def _of_requests(self) -> None:
        histogram, counter, gauge = self._histogram, self._counter, self._gauge
        self.ttft = histogram(
            "vllm:time_to_first_token_seconds",
            "Arrival to first token.",
            (*_TTFT_S, *_TTFT_LONG_S),
        )
        self.itl = histogram(
            "vllm:inter_token_latency_seconds", "Between two tokens.", (*_ITL_S, 1, 2.5, 5)
        )
        self.e2e = histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to the end.", (*_REQUEST_S, 240, 960)
        )
        self.queue_time = histogram(
            "vllm:request_queue_time_seconds", "In the queue.", (0.001, 0.005, *_REQUEST_S)
        )
        self.prompt_size = histogram("vllm:request_prompt_tokens", "Prompt tokens.", _TOKENS)
        self.answer_size = histogram("vllm:request_generation_tokens", "Answer tokens.", _TOKENS)
        self.step_time = histogram("llmos:step_seconds", "One engine step.", _STEP_S)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens processed.", _MODEL)
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.", _MODEL)
        self.prefix_queries = counter(
            "vllm:prefix_cache_queries", "Prompt tokens looked up in prefix caches.", _MODEL
        )
        self.prefix_hits = counter(
            "vllm:prefix_cache_hits", "Prompt tokens found in prefix caches.", _MODEL
        )
        self.draft_tokens = counter(
            "vllm:spec_decode_num_draft_tokens", "Tokens guessed ahead.", _MODEL
        )
        self.accepted_tokens = counter(
            "vllm:spec_decode_num_accepted_tokens", "Of those, tokens that came.", _MODEL
        )
        self.success = counter(
            "vllm:request_success", "Requests finished.", _MODEL, "finished_reason"
        )
        self.failures = counter("llmos:request_failure", "Requests failed.", _MODEL, "code")
        self.refusals = counter("llmos:request_refused", "Requests refused.", "code")
        self.requests_unrecorded = counter(
            "llmos:request_unrecorded", "Records of requests dropped: the disk would not take them."
        )
        self.running = gauge("vllm:num_requests_running", "Holding a slot.", _MODEL)
        self.waiting = gauge("vllm:num_requests_waiting", "In the queue.", _MODEL)
        self.kv_usage = gauge("vllm:kv_cache_usage_perc", "KV in use, 0 to 1.", _MODEL)
        self.kv_cached_bytes = gauge(
            "llmos:kv_cached_bytes", "KV of no request, kept for prompts that begin alike.", _MODEL
        )
        self.cost_error = gauge(
            "llmos:cost_error", "Mean relative error of predicted service times.", _MODEL
        )
        self.preemptions = counter(
            "vllm:num_preemptions", "Rows taken from requests for others.", _MODEL
        )

    def _of_memory(self) -> None:
        histogram, counter, gauge = self._histogram, self._counter, self._gauge
        self.resumes = counter(
            "llmos:resumes", "Suspended requests that went on: snapshot or recomputed.", "how"
        )
        self.suspend_time = histogram(
            "llmos:suspend_seconds", "From the order to suspend to the snapshot.", _STEP_S
        )
        self.snapshot_bytes = histogram(
            "llmos:snapshot_size_bytes", "Of one suspended request.", _SIZES
        )
        self.model_switches = counter(
            "llmos:model_switches", "Replicas started, parked, unparked and stopped.", "what"
        )
        self.available_bytes = gauge(
            "llmos:memory_available_bytes", "Measured; negative: no answer.", "device"
        )
        self.replicas = gauge("llmos:replicas", "Resident replicas by state.", "state")
        self.reserved_bytes = gauge("llmos:memory_reserved_bytes", "Reserved in the ledger.")
        self.budget_bytes = gauge("llmos:memory_budget_bytes", "What the ledger may reserve.")
        self.worker_deaths = counter("llmos:worker_deaths", "Workers that died unasked.", "role")

    def _of_jobs(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.jobs = gauge("llmos:jobs", "Jobs of this server by phase.", "phase")
        self.job_attempts = counter("llmos:job_attempts", "Attempts of jobs begun.", "program")
        self.job_ends = counter("llmos:job_ends", "Jobs ended; dead: dead letters.", "state")
        self.job_deaths = counter("llmos:job_worker_deaths", "Workers that died.", "program")
        self.job_frozen = counter("llmos:job_frozen_seconds", "Time stood frozen.", "program")
        self.job_writes = self._histogram(
            "llmos:job_store_seconds", "Durable writes of jobs.", _WRITE_S, "operation"
        )

    def _of_home(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.disk_free_bytes = gauge("llmos:disk_free_bytes", "Free on the home's disk.")
        self.blob_bytes = gauge("llmos:blob_bytes", "All blobs, when last looked at.")
        self.missing_blobs = gauge("llmos:missing_blobs", "Referred to, but not in the store.")
        self.collected_bytes = counter("llmos:collected_bytes", "Of blobs that were deleted.")
        self.last_backup = gauge("llmos:last_backup_timestamp_seconds", "End of the last backup.")
        self.turns = counter("llmos:kernel_turns", "Turns of the kernel's loop.")
        self.step_errors = counter("llmos:kernel_errors", "Exceptions caught by the kernel's loop.")

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
