"""What the end of a request leaves: metrics by vLLM's and OpenTelemetry's names, a log line, and
the attributes of its span. Never its text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmos.abi.events import Aborted, Failed, Finished, FinishReason, Terminal
from llmos.abi.inference import ChatPrompt, Prepared, Sampling, Usage
from llmos.abi.principal import Principal, Role, ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import Infer
from llmos.errors import EngineFailed, InvalidRequest, QueueFull
from llmos.kernel.counting import count_end, count_refusal
from llmos.kernel.process import Process
from llmos.kernel.records import line_of, row_of
from llmos.kernel.stream import Bounds, Stream
from llmos.kernel.tracing import record_of
from llmos.telemetry.logs import encode as encode_line
from llmos.telemetry.metrics import Metrics
from llmos.telemetry.spans import Context, Span
from llmos.telemetry.traced import decode, encode
from llmos.telemetry.tracer import Trace

PLANTED = "planted prompt"
MS = 1_000_000


def a_process(**fields: Any) -> Process:
    """Of the model `m:1`, created 500 ms ago."""
    version = ModelVersion(
        model_id="mdl_1",
        name="m",
        version="1",
        driver="echo",
        format="",
        folder="/",
        digest="",
        size_bytes=1,
        context_length=100,
        vocab_size=100,
        prepare="",
        source="",
        created_ns=0,
        kv_bytes_per_token=64,
    )
    sampling = Sampling(temperature=0.5, max_tokens=9, stop=[PLANTED], seed=3)
    body = Infer("m", ChatPrompt([{"role": "user", "content": PLANTED}]), sampling)
    bounds = Bounds(4, 2)
    now_mono = time.monotonic_ns()
    made: dict[str, Any] = {
        "request_id": "req_1",
        "principal": Principal("prn_1", "t", "ann", Role.USER, ServiceClass.BATCH),
        "version": version,
        "body": body,
        "service_class": ServiceClass.BATCH,
        "stream": Stream(None, "req_1", bounds, lambda request_id, stalled: None),
        "created_ns": time.time_ns() - 500 * MS,
        "created_mono": now_mono - 500 * MS,
        "prepared": Prepared("req_1", b"", 6),
    }
    return Process(**{**made, **fields})


def served() -> Process:
    """Queued 100 ms, first token after 200 ms, 5 tokens until 400 ms."""
    process = a_process()
    process.started_mono = process.created_mono + 100 * MS
    process.started_ns = process.created_ns + 100 * MS
    process.first_token_mono = process.created_mono + 200 * MS
    process.last_token_mono = process.created_mono + 400 * MS
    process.num_tokens = 5
    process.num_preemptions = 2
    return process


FINISHED = Finished("req_1", FinishReason.STOP, Usage(6, 5, 4))
LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "llmos",
    "gen_ai_request_model": "m",
    "gen_ai_response_model": "m:1",
}


def counted(process: Process, event: Terminal) -> dict[str, Any]:
    """Samples by name, with the last label set of each."""
    metrics = Metrics()
    process.end(event, time.time_ns())
    count_end(metrics, process, event, 0.5)
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {sample.name: sample for family in families for sample in family.samples}


def test_a_finished_request_is_in_every_histogram() -> None:
    found = counted(served(), FINISHED)
    for name, value in {
        "vllm:request_prefill_time_seconds": 0.1,
        "vllm:request_decode_time_seconds": 0.2,
        "vllm:request_time_per_output_token_seconds": 0.05,
        "vllm:request_num_preemptions": 2,
        "vllm:request_prefill_kv_computed_tokens": 2,
        "vllm:request_params_max_tokens": 9,
        "vllm:request_max_num_generation_tokens": 5,
        "vllm:request_params_n": 1,
        "gen_ai_server_time_to_first_token_seconds": 0.2,
        "gen_ai_server_time_per_output_token_seconds": 0.05,
    }.items():
        assert found[f"{name}_sum"].value == pytest.approx(value), name
        assert found[f"{name}_count"].value == 1, name
    assert found["vllm:prompt_tokens_cached_total"].value == 4
    assert found["vllm:request_inference_time_seconds_sum"].value == pytest.approx(0.4, abs=0.1)
    labels = found["gen_ai_server_time_to_first_token_seconds_count"].labels
    assert labels == LABELS
    duration = found["gen_ai_server_request_duration_seconds_count"]
    assert {k: v for k, v in duration.labels.items() if v} == LABELS


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Failed("req_1", EngineFailed("x").to_info()), "engine_failed"),
        (Aborted("req_1", "client left"), "aborted"),
    ],
)
def test_one_that_did_not_finish_has_a_duration_with_its_error(event: Terminal, error: str) -> None:
    found = counted(served(), event)
    duration = found["gen_ai_server_request_duration_seconds_count"]
    assert duration.labels == LABELS | {"error_type": error}
    assert "gen_ai_server_time_to_first_token_seconds_count" not in found


def test_refusals_by_a_queue_are_vllms_rejections() -> None:
    metrics = Metrics()
    count_refusal(metrics, a_process(), QueueFull("x").to_info())
    count_refusal(metrics, a_process(), InvalidRequest("x").to_info())
    text = metrics.render()[0].decode()
    assert 'vllm:admission_rejections_total{model_name="m:1",reason="queue_full"} 1.0' in text
    assert text.count("\nvllm:admission_rejections_total") == 1
    assert 'llmos:request_refused_total{code="invalid_request"} 1.0' in text


def told_of(process: Process, event: Terminal) -> dict[str, Any]:
    """The line of the log."""
    line: dict[str, Any] = json.loads(encode_line(line_of(process, row_of(process, event, 1))))
    return line


def spans_of(process: Process, trace: Trace, event: Terminal) -> list[Span]:
    """As they are made in another process."""
    return decode(encode(record_of(process, trace, row_of(process, event, 1), event))).spans()


def test_a_line_of_the_log_says_who_and_how_long() -> None:
    process = served()
    process.trace = Trace(Context("a" * 32, "b" * 16), 1)
    process.end(FINISHED, 1_700_000_000_042_999_999)
    process.created_ns = process.ended_ns - 500 * MS  # type: ignore[operator]
    told = told_of(process, FINISHED)
    assert list(told)[:4] == ["time", "level", "logger", "message"]
    assert told["time"] == "2023-11-14T22:13:20.042Z"
    assert told["message"] == "a request finished"
    assert (told["request_id"], told["class"]) == ("req_1", "batch")
    assert (told["lasted_s"], told["queued_s"], told["ttft_s"]) == (0.5, 0.1, 0.2)
    assert (told["outcome"], told["trace_id"]) == ("finished", "a" * 32)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (6, 5)
    assert PLANTED not in repr(told)


def test_a_line_has_no_word_about_what_did_not_happen() -> None:
    event = Failed("req_1", EngineFailed("broke").to_info())
    process = a_process()
    process.end(event, process.created_ns + 500 * MS)
    told = told_of(process, event)
    assert (told["outcome"], told["error"]) == ("failed", "engine_failed")
    assert not {"queued_s", "ttft_s", "trace_id", "parent_id"} & set(told)


def test_a_span_has_the_attributes_of_generative_ai_and_no_text() -> None:
    process, trace = served(), Trace(Context("a" * 32, "b" * 16, "c" * 16), 1)
    process.end(FINISHED, process.created_ns + 500 * MS)
    made = spans_of(process, trace, FINISHED)
    root, *stages = made
    assert root.name == "chat m:1"
    assert root.attributes["gen_ai.usage.input_tokens"] == 6
    assert root.attributes["gen_ai.usage.output_tokens"] == 5
    assert root.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert root.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert root.attributes["gen_ai.request.max_tokens"] == 9
    assert root.attributes["gen_ai.request.seed"] == 3
    assert root.error == ""
    assert stages
    assert PLANTED not in repr(made)


def test_a_failed_request_is_a_failed_span() -> None:
    event = Failed("req_1", EngineFailed("broke").to_info())
    process, trace = served(), Trace(Context("a" * 32, "b" * 16), 1)
    process.end(event, process.created_ns + 500 * MS)
    root = spans_of(process, trace, event)[0]
    assert root.error == "engine_failed: broke"
    assert root.attributes["error.type"] == "engine_failed"
