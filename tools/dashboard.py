"""Write `deploy/telemetry/grafana.json`: rows of panels over `/metrics`, as Grafana imports them.

A dashboard is long and says everything again; this says it once. `make docs` writes it with the
generated pages, a test holds every metric it names to those there are.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

WIDTH, HEIGHT = 8, 8
_SELECT = 'model_name=~"$model"'


class Panel(NamedTuple):
    """`queries`: PromQL by legend."""

    title: str
    unit: str
    queries: dict[str, str]
    about: str = ""


def quantiles(name: str, *, by: str = "", select: str = _SELECT) -> dict[str, str]:
    """Half and 99 % of a histogram."""
    keys = ", ".join(["le", *([by] if by else [])])
    legend = f" {{{{{by}}}}}" if by else ""
    return {
        f"p{share}{legend}": f"histogram_quantile({share / 100}, sum by ({keys})"
        f" (rate({name}_bucket{{{select}}}[$__rate_interval])))"
        for share in (50, 99)
    }


def rate(name: str, by: str, select: str = _SELECT) -> dict[str, str]:
    """Of a counter, a second."""
    chosen = f"{{{select}}}" if select else ""
    query = f"sum by ({by}) (rate({name}_total{chosen}[$__rate_interval]))"
    return {f"{{{{{by}}}}}": query}


ROWS: dict[str, list[Panel]] = {
    "Throughput": [
        Panel("Requests ended", "reqps", rate("vllm:request_success", "finished_reason")),
        Panel(
            "Tokens",
            "short",
            {
                "generated": f"sum(rate(vllm:generation_tokens_total{{{_SELECT}}}"
                "[$__rate_interval]))",
                "prompt": f"sum(rate(vllm:prompt_tokens_total{{{_SELECT}}}[$__rate_interval]))",
            },
        ),
        Panel("Failed", "reqps", rate("llmos:request_failure", "code")),
    ],
    "Latency": [
        Panel("Time to first token", "s", quantiles("vllm:time_to_first_token_seconds")),
        Panel("Between two tokens", "s", quantiles("vllm:inter_token_latency_seconds")),
        Panel("Whole request", "s", quantiles("vllm:e2e_request_latency_seconds")),
        Panel("In the queue", "s", quantiles("vllm:request_queue_time_seconds")),
        Panel("Prefill", "s", quantiles("vllm:request_prefill_time_seconds")),
        Panel("One engine step", "s", quantiles("llmos:step_seconds")),
    ],
    "Requests now": [
        Panel(
            "Running and waiting",
            "short",
            {
                "running {{model_name}}": f"vllm:num_requests_running{{{_SELECT}}}",
                "waiting {{model_name}}": f"vllm:num_requests_waiting{{{_SELECT}}}",
            },
        ),
        Panel("Refused", "reqps", rate("llmos:request_refused", "code", "")),
        Panel("Rows taken for others", "ops", rate("vllm:num_preemptions", "model_name")),
    ],
    "Memory": [
        Panel(
            "Ledger",
            "bytes",
            {
                "reserved": "llmos:memory_reserved_bytes",
                "budget": "llmos:memory_budget_bytes",
                "available {{device}}": "llmos:memory_available_bytes",
            },
        ),
        Panel(
            "KV in use", "percentunit", {"{{model_name}}": f"vllm:kv_cache_usage_perc{{{_SELECT}}}"}
        ),
        Panel(
            "Prompt tokens found in prefix caches",
            "percentunit",
            {
                "{{model_name}}": "sum by (model_name) (rate(vllm:prefix_cache_hits_total"
                f"{{{_SELECT}}}[$__rate_interval])) / sum by (model_name) "
                f"(rate(vllm:prefix_cache_queries_total{{{_SELECT}}}[$__rate_interval]) > 0)"
            },
        ),
        Panel("Replicas", "short", {"{{state}}": "llmos:replicas"}),
        Panel("Models switched", "ops", rate("llmos:model_switches", "what", "")),
        Panel("Disk", "bytes", {"free": "llmos:disk_free_bytes", "blobs": "llmos:blob_bytes"}),
    ],
    "Use": [
        Panel("Processors, requests", "short", rate("llmos:request_cpu_seconds", "model_name")),
        Panel(
            "Power, requests",
            "watt",
            {
                "{{model_name}} ({{basis}})": "sum by (model_name, basis) "
                f"(rate(llmos:request_energy_joules_total{{{_SELECT}}}[$__rate_interval]))"
            },
            "basis: rapl is measured, estimate is processor time by `telemetry.watts_per_core`.",
        ),
        Panel("Processors, jobs", "short", rate("llmos:job_cpu_seconds", "program", "")),
    ],
    "Jobs and health": [
        Panel("Jobs", "short", {"{{phase}}": "llmos:jobs"}),
        Panel("Jobs ended", "ops", rate("llmos:job_ends", "state", "")),
        Panel("Workers that died", "ops", rate("llmos:worker_deaths", "role", "")),
    ],
}


def dashboard() -> str:
    """The whole file."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": place})
        top += 1
        for number, panel in enumerate(row):
            x, y = number % 3 * WIDTH, top + number // 3 * HEIGHT
            panels.append(_panel(panel, {"x": x, "y": y, "w": WIDTH, "h": HEIGHT}))
        top += -(-len(row) // 3) * HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return json.dumps(_file(panels), indent=1) + "\n"


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(ord("A") + n), "datasource": source, "expr": query, "legendFormat": legend}
        for n, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _file(panels: list[dict[str, Any]]) -> dict[str, Any]:
    source = {
        "name": "source",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    model = {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": "label_values(vllm:num_requests_running, model_name)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
    }
    return {
        "uid": "llmos",
        "title": "LLMOS",
        "tags": ["llmos"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, model]},
        "annotations": {"list": []},
        "panels": panels,
    }
