"""A Tracer as the settings ask for it."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable
from pathlib import Path

from llmos.errors import ConfigError
from llmos.telemetry.config import TelemetryConfig
from llmos.telemetry.export import Exporter
from llmos.telemetry.scribe import Destination, Scribe
from llmos.telemetry.tracer import Tracer

TRACES = "traces.jsonl"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def open_tracer(
    config: TelemetryConfig, folder: Path, version: str, dropped: Callable[[int], None]
) -> tuple[Tracer, Exporter] | None:
    """None when traces are off. `folder` is where logs lie. Raises ConfigError."""
    if config.traces == "off":
        return None
    exporter = Exporter(Scribe(_destination(config, folder, version)), dropped)
    tracer = Tracer(exporter.give, ratio=config.trace_ratio, max_steps=config.trace_steps)
    return tracer, exporter


def _destination(config: TelemetryConfig, folder: Path, version: str) -> Destination:
    resource: dict[str, str | int] = {
        "service.name": "llmos",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    if config.traces == "file":
        return Destination(resource, version, path=str(folder / TRACES))
    if not _is_installed(_EXPORTER):  # it is loaded where it is used: in another process
        raise ConfigError(
            "telemetry.traces is 'otlp', which needs OpenTelemetry: pip install 'llmos[otel]'"
        )
    url, timeout_s = config.traces_url, config.traces_timeout_s
    return Destination(resource, version, url=url, timeout_s=timeout_s)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: it is known to be no module
        return False
