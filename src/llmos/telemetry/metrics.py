"""Prometheus metrics: vLLM's names where vLLM has a word, `llmos:*` where it has none."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from llmos.telemetry import buckets
from llmos.telemetry.histogram import FastHistogram

_MODEL = "model_name"


class Described(NamedTuple):
    """A metric; `kind` is Prometheus's word. A counter's samples have `_total` after the name."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


class Metrics:
    """All of them, in a registry of their own. Durations in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        """Every metric there is: for the reference."""
        self._of_requests()
        self._of_answers()
        self._of_use()
        self._of_gen_ai()
        self._of_memory()
        self._of_jobs()
        self._of_home()

    def _histogram(
        self, name: str, doc: str, bounds: tuple[float, ...], *labels: str
    ) -> FastHistogram:
        """Of a model unless `labels` say of what."""
        labels = labels or (_MODEL,)
        self.described.append(Described(name, "histogram", labels, doc))
        made = FastHistogram(name, doc, labels, bounds)
        self.registry.register(made)
        return made

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        self.described.append(Described(name, "counter", labels, doc))
        return Counter(name, doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        self.described.append(Described(name, "gauge", labels, doc))
        return Gauge(name, doc, labels, registry=self.registry)

    def _of_requests(self) -> None:
        histogram, counter, gauge = self._histogram, self._counter, self._gauge
        self.ttft = histogram(
            "vllm:time_to_first_token_seconds",
            "Arrival to first token.",
            buckets.TTFT_LONG_S,
        )
        self.itl = histogram(
            "vllm:inter_token_latency_seconds", "Between two tokens.", buckets.ITL_LONG_S
        )
        self.e2e = histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to the end.", buckets.REQUEST_LONG_S
        )
        self.queue_time = histogram(
            "vllm:request_queue_time_seconds", "In the queue.", buckets.PART_S
        )
        self.prompt_size = histogram("vllm:request_prompt_tokens", "Prompt tokens.", buckets.TOKENS)
        self.answer_size = histogram(
            "vllm:request_generation_tokens", "Answer tokens.", buckets.TOKENS
        )
        self.step_time = histogram("llmos:step_seconds", "One engine step.", buckets.STEP_S)
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

    def _of_answers(self) -> None:
        """What vLLM tells of each request that has ended."""
        histogram, counter, gauge = self._histogram, self._counter, self._gauge
        self.token_time = histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean time of a token after the first.",
            buckets.ITL_LONG_S,
        )
        self.inference_time = histogram(
            "vllm:request_inference_time_seconds", "First row to the end.", buckets.PART_S
        )
        self.prefill_time = histogram(
            "vllm:request_prefill_time_seconds", "First row to first token.", buckets.PART_S
        )
        self.decode_time = histogram(
            "vllm:request_decode_time_seconds", "First token to last token.", buckets.PART_S
        )
        self.preempted = histogram(
            "vllm:request_num_preemptions", "Rows taken from one request.", buckets.PREEMPTIONS
        )
        self.computed_size = histogram(
            "vllm:request_prefill_kv_computed_tokens",
            "Prompt tokens that no prefix cache had.",
            buckets.TOKENS,
        )
        self.step_tokens = histogram(
            "vllm:iteration_tokens_total",
            "Tokens of one engine step; a prompt counts in the step of its first token.",
            buckets.STEP_TOKENS,
        )
        self.wanted_tokens = histogram(
            "vllm:request_params_max_tokens", "`max_tokens`, where one was given.", buckets.TOKENS
        )
        self.most_tokens = histogram(
            "vllm:request_max_num_generation_tokens",
            "Answer tokens of the longest choice: each choice is a request here.",
            buckets.TOKENS,
        )
        self.choices = histogram(
            "vllm:request_params_n", "Choices: each is a request here.", buckets.CHOICES
        )
        self.cached_tokens = counter(
            "vllm:prompt_tokens_cached", "Prompt tokens found in prefix caches.", _MODEL
        )
        self.tokens_by_source = counter(
            "vllm:prompt_tokens_by_source",
            "Prompt tokens: local_compute or local_cache_hit.",
            *(_MODEL, "source"),
        )
        self.rejections = counter(
            "vllm:admission_rejections", "Requests refused by a limit of a queue.", _MODEL, "reason"
        )
        self.waiting_by_reason = gauge(
            "vllm:num_requests_waiting_by_reason",
            "In the queue: capacity (a row), or deferred (the model is not resident).",
            *(_MODEL, "reason"),
        )
        self.sleep_state = gauge(
            "vllm:engine_sleep_state",
            "1 of awake, weights_offloaded (parked), discard_all (not resident).",
            *(_MODEL, "sleep_state"),
        )

    def _of_use(self) -> None:
        """What work has used of the machine; see `abi.spent`."""
        counter = self._counter
        self.request_cpu = counter(
            "llmos:request_cpu_seconds", "Processor time of workers, by whose requests.", _MODEL
        )
        self.request_joules = counter(
            "llmos:request_energy_joules",
            "Energy of requests; basis: rapl, or estimate.",
            *(_MODEL, "basis"),
        )
        self.job_cpu = counter(
            "llmos:job_cpu_seconds", "Processor time of jobs' own workers.", "program"
        )
        self.job_joules = counter(
            "llmos:job_energy_joules",
            "Energy of jobs' own workers; basis: rapl, or estimate.",
            *("program", "basis"),
        )

    def _of_gen_ai(self) -> None:
        """OpenTelemetry's metrics of model servers, as Prometheus writes their names."""
        names = tuple(
            f"gen_ai_{name}"
            for name in ("operation_name", "provider_name", "request_model", "response_model")
        )
        self.gen_ai_duration = self._histogram(
            "gen_ai_server_request_duration_seconds",
            "Arrival to the end, of every request.",
            buckets.GEN_AI_REQUEST_S,
            *(*names, "error_type"),
        )
        self.gen_ai_first = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Arrival to first token, of requests that finished.",
            buckets.GEN_AI_FIRST_S,
            *names,
        )
        self.gen_ai_token = self._histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time of a token after the first, of requests that finished.",
            buckets.GEN_AI_TOKEN_S,
            *names,
        )

    def _of_memory(self) -> None:
        histogram, counter, gauge = self._histogram, self._counter, self._gauge
        self.resumes = counter(
            "llmos:resumes", "Suspended requests that went on: snapshot or recomputed.", "how"
        )
        self.suspend_time = histogram(
            "llmos:suspend_seconds", "From the order to suspend to the snapshot.", buckets.STEP_S
        )
        self.snapshot_bytes = histogram(
            "llmos:snapshot_size_bytes", "Of one suspended request.", buckets.SIZES
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
        for role in ("replica", "tokenizer", "program"):  # a rise from nothing is not seen as one
            self.worker_deaths.labels(role)

    def _of_jobs(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.jobs = gauge("llmos:jobs", "Jobs of this server by phase.", "phase")
        self.job_attempts = counter("llmos:job_attempts", "Attempts of jobs begun.", "program")
        self.job_ends = counter("llmos:job_ends", "Jobs ended; dead: dead letters.", "state")
        for state in ("succeeded", "failed", "cancelled", "dead"):
            self.job_ends.labels(state)
        self.job_deaths = counter("llmos:job_worker_deaths", "Workers that died.", "program")
        self.job_frozen = counter("llmos:job_frozen_seconds", "Time stood frozen.", "program")
        self.job_writes = self._histogram(
            "llmos:job_store_seconds", "Durable writes of jobs.", buckets.WRITE_S, "operation"
        )

    def _of_home(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.disk_free_bytes = gauge("llmos:disk_free_bytes", "Free on the home's disk.")
        self.blob_bytes = gauge("llmos:blob_bytes", "All blobs, when last looked at.")
        self.missing_blobs = gauge("llmos:missing_blobs", "Referred to, but not in the store.")
        self.collected_bytes = counter("llmos:collected_bytes", "Of blobs that were deleted.")
        self.last_backup = gauge("llmos:last_backup_timestamp_seconds", "End of the last backup.")
        self.spans_dropped = counter(
            "llmos:traces_dropped", "Records of traced answers and requests that were lost."
        )
        self.lines_dropped = counter(
            "llmos:log_lines_dropped", "Lines about ended requests that were lost."
        )
        self.turns = counter("llmos:kernel_turns", "Turns of the kernel's loop.")
        self.step_errors = counter("llmos:kernel_errors", "Exceptions caught by the kernel's loop.")

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
