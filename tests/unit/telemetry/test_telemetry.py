"""Metrics as Prometheus reads them, logs as a machine reads them."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmos.telemetry.logs import GATHER_S, REQUESTS, RequestLine, RequestLines, setup_logs
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


def line(number: int, model: str = "m:1") -> RequestLine:
    """One that can be told from others."""
    told = (f"req_{number}", model, "chat", "t", "normal", "finished", 1, 1, 0.5)
    return RequestLine("2026-01-01T00:00:00.000Z", "info", REQUESTS, "a request finished", *told)


def ids(path: Path) -> list[str | None]:
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(one).get("request_id") for one in lines]


def test_lines_about_requests_are_gathered_and_none_is_lost_at_the_end(
    tmp_path: Path, root_logger: logging.Logger
) -> None:
    dropped = list[int]()
    lines = RequestLines(setup_logs(tmp_path, "info"), dropped.append, interval_s=0.001)
    for number in range(5000):
        lines.give(line(number))
    lines.close()
    logging.getLogger("llmos.x").info("after them")
    assert ids(tmp_path / "llmos.log") == [*(f"req_{n}" for n in range(5000)), None]
    assert dropped == []


def test_lines_are_seen_a_moment_later(tmp_path: Path, root_logger: logging.Logger) -> None:
    lines = RequestLines(setup_logs(tmp_path, "info"), lambda n: None)
    try:
        began_s = time.monotonic()
        lines.give(line(1))
        while not ids(tmp_path / "llmos.log"):
            assert time.monotonic() - began_s < 30
            time.sleep(0.01)
        assert GATHER_S <= 0.5
    finally:
        lines.close()


def test_lines_that_do_not_fit_or_are_no_text_are_counted(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos.telemetry.logs.MAX_GATHERED", 3)
    dropped = list[int]()
    lines = RequestLines(setup_logs(tmp_path, "info"), dropped.append, interval_s=60)
    lines.give(line(0, "\ud800"))
    for number in range(5):
        lines.give(line(number))
    lines.close()
    assert ids(tmp_path / "llmos.log") == ["req_0", "req_1", "req_2"]
    assert sum(dropped) == 3


def test_lines_for_a_disk_that_is_full_are_counted(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, dropped = setup_logs(tmp_path, "info"), list[int]()

    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file, "write", full)
    lines = RequestLines(file, dropped.append, interval_s=60)
    lines.give(line(1))
    lines.close()
    assert dropped == [1]


def test_a_write_that_fails_leaves_none_of_its_lines(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted as dropped is not in the file, then or later, and cuts no other line."""
    file, dropped = setup_logs(tmp_path, "info"), list[int]()
    lines = RequestLines(file, dropped.append, interval_s=60)
    logging.getLogger("llmos.x").info("before")
    write = os.write
    with monkeypatch.context() as full:

        def fill(descriptor: int, data: memoryview) -> int:
            if len(data) > 300:  # so much space is left
                return write(descriptor, data[:300])
            raise OSError(28, "No space left on device")

        full.setattr(os, "write", fill)
        for number in range(5):
            lines.give(line(number))
        lines.close()
    logging.getLogger("llmos.x").info("after")
    found = [json.loads(one) for one in (tmp_path / "llmos.log").read_text("utf-8").splitlines()]
    assert [one["message"] for one in found] == ["before", "after"]
    assert dropped == [5]


def test_a_rollover_that_cannot_open_its_file_costs_no_old_log(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos.telemetry.logs.MAX_LOG_BYTES", 100)
    file = setup_logs(tmp_path, "info")

    def no_file() -> NoReturn:
        raise OSError(24, "Too many open files")

    for number in range(4):
        file.write(b"%d" % number * 100 + b"\n")
    with monkeypatch.context() as full:
        full.setattr(file, "_open", no_file)
        for _ in range(5):
            with pytest.raises(OSError, match="Too many"):
                file.write(b"lost\n")
    file.write(b"new\n")
    kept = {path.name: path.read_text()[0] for path in tmp_path.iterdir()}
    assert kept == {"llmos.log": "n", "llmos.log.1": "3", "llmos.log.2": "2", "llmos.log.3": "1"}


def test_gathered_lines_turn_a_full_log_over(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos.telemetry.logs.MAX_LOG_BYTES", 1000)
    file = setup_logs(tmp_path, "info")
    for number in range(2):
        file.write(b"%d" % number * 1000 + b"\n")
    assert (tmp_path / "llmos.log.1").read_text() == "0" * 1000 + "\n"
    assert (tmp_path / "llmos.log").read_text() == "1" * 1000 + "\n"
