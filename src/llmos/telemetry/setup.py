"""A Tracer as the settings ask for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from llmos.telemetry.config import TelemetryConfig
from llmos.telemetry.export import Exporter, Sink
from llmos.telemetry.otlp import TraceFile
from llmos.telemetry.spans import Attributes
from llmos.telemetry.tracer import Tracer

TRACES = "traces.jsonl"


def open_tracer(
    config: TelemetryConfig, folder: Path, version: str, dropped: Callable[[int], None]
) -> tuple[Tracer, Exporter] | None:
    """None when traces are off. `folder` is where logs lie. Raises ConfigError."""
    if config.traces == "off":
        return None
    exporter = Exporter(_sink(config, folder, version), dropped)
    tracer = Tracer(exporter.give, ratio=config.trace_ratio, max_steps=config.trace_steps)
    return tracer, exporter


def _sink(config: TelemetryConfig, folder: Path, version: str) -> Sink:
    resource: Attributes = {
        "service.name": "llmos",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    if config.traces == "file":
        return TraceFile(folder / TRACES, resource, version)
    from llmos.telemetry.otlp_http import Collector

    return Collector(config.traces_url, config.traces_timeout_s, resource, version)
