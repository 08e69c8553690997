"""Metrics as Prometheus reads them, logs as a machine reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmos.telemetry.logs import REQUESTS, setup_logs
from llmos.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    body, kind = metrics.render()
    assert "text/plain" in kind
    return {
        (sample.name, sample.labels.get("le") or sample.labels.get("model_name", "")): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_histograms_are_cumulative_and_have_vllms_names() -> None:
    metrics = Metrics()
    for value in (0.0005, 0.003, 0.003, 99.0):
        metrics.itl.labels("m:1").observe(value)
    found = samples(metrics)
    name = "vllm:inter_token_latency_seconds"
    assert found[f"{name}_bucket", "0.001"] == 1
    assert found[f"{name}_bucket", "0.005"] == 3
    assert found[f"{name}_bucket", "+Inf"] == 4
    assert found[f"{name}_count", "m:1"] == 4
    assert found[f"{name}_sum", "m:1"] == pytest.approx(99.0065)


def test_a_value_on_the_bound_belongs_to_the_bucket() -> None:
    metrics = Metrics()
    metrics.ttft.labels("m").observe(0.001)
    assert samples(metrics)["vllm:time_to_first_token_seconds_bucket", "0.001"] == 1


def test_counters_keep_vllms_names() -> None:
    metrics = Metrics()
    metrics.generation_tokens.labels("m").inc(5)
    metrics.success.labels("m", "stop").inc()
    names = {name for name, _ in samples(metrics)}
    assert {"vllm:generation_tokens_total", "vllm:request_success_total"} <= names


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    for handler in list(root.handlers):
        root.removeHandler(handler)
        if handler not in before:
            handler.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)
    requests = logging.getLogger(REQUESTS)
    requests.propagate = True
    for handler in list(requests.handlers):
        requests.removeHandler(handler)
        handler.close()


def test_a_log_line_is_json_with_its_extras(tmp_path: Path, root_logger: logging.Logger) -> None:
    setup_logs(tmp_path, "info")
    logging.getLogger("llmos.x").info("worker %s", "你好", extra={"request_id": "req_1"})
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("llmos.x").exception("failed")
    first, second = map(json.loads, (tmp_path / "llmos.log").read_text("utf-8").splitlines())
    assert first["message"] == "worker 你好"
    assert first["request_id"] == "req_1"
    assert first["level"] == "info"
    assert "ValueError: boom" in second["exception"]


def test_a_full_log_is_turned_over(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos.telemetry.logs.MAX_LOG_BYTES", 1000)
    setup_logs(tmp_path, "info")
    for number in range(30):
        logging.getLogger("llmos.x").info("line %d %s", number, "x" * 60)
    sizes = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert len(sizes) == 4  # the current one and three old ones
    assert all(size < 1300 for size in sizes)
    lines = (tmp_path / "llmos.log").read_text("utf-8").splitlines()
    assert json.loads(lines[-1])["message"].startswith("line 29 ")


def test_stderr_may_be_json(
    tmp_path: Path, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logs(tmp_path, "info", "json")
    logging.getLogger("llmos.x").warning("careful", extra={"request_id": "req_2"})
    logging.getLogger("llmos.x").info("not shown there")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(t["message"], t["request_id"]) for t in told] == [("careful", "req_2")]


def test_lines_about_requests_are_gathered_and_none_is_lost_at_the_end(
    tmp_path: Path, root_logger: logging.Logger
) -> None:
    setup_logs(tmp_path, "info", requests=True)
    log = logging.getLogger(REQUESTS)
    for number in range(200):
        log.info("a request finished", extra={"request_id": f"req_{number}"})
    (gathered,) = log.handlers
    gathered.close()
    log.removeHandler(gathered)
    lines = [json.loads(x) for x in (tmp_path / "llmos.log").read_text("utf-8").splitlines()]
    assert [line["request_id"] for line in lines] == [f"req_{n}" for n in range(200)]
