"""`docs/metrics.md`: every metric of `/metrics`, and where vLLM's names lead."""

from __future__ import annotations

from collections.abc import Iterable

VLLM = "0.32.0"
"""The version whose names these are: its v1 loggers, speculation and the offloading connectors."""

LEFT_OUT: dict[str, str] = {
    "vllm:cache_config_info": "settings of vLLM's own block pool; `llmos config show` has ours",
    "vllm:corrupted_requests": "needs a check of every logit, which vLLM has off as well",
    "vllm:external_prefix_cache_queries": "no cache outside the engine",
    "vllm:external_prefix_cache_hits": "no cache outside the engine",
    "vllm:mm_cache_queries": "no cache of images",
    "vllm:mm_cache_hits": "no cache of images",
    "vllm:num_requests_kv_fetch_by_stage": "no KV from other machines",
    "vllm:prompt_tokens_cached_by_source": "one tier; `vllm:prompt_tokens_by_source` tells of it",
    "vllm:kv_block_lifetime_seconds": "engines do not tell of single blocks",
    "vllm:kv_block_idle_before_evict_seconds": "engines do not tell of single blocks",
    "vllm:kv_block_reuse_gap_seconds": "engines do not tell of single blocks",
    "vllm:lora_requests_info": "an adapter is a version of its own",
    "vllm:watermark_requests": "no watermarks yet",
    "vllm:spec_decode_num_drafts": "drivers tell tokens guessed and accepted, not how often",
    "vllm:spec_decode_num_accepted_tokens_per_pos": "drivers tell tokens guessed and accepted",
    "vllm:estimated_flops_per_gpu_total": "no model of an engine's arithmetic",
    "vllm:estimated_read_bytes_per_gpu_total": "no model of an engine's traffic",
    "vllm:estimated_write_bytes_per_gpu_total": "no model of an engine's traffic",
}
"""Names of vLLM's that `/metrics` does not have, and why. A dashboard shows nothing there."""

FAMILIES = ("vllm:diffusion_", "vllm:kv_offload_", "vllm:simple_kv_offload_")
"""Whole families that are left out: diffusion models, and connectors that move KV to the host."""

TITLES = {
    "vllm:": "vLLM's names",
    "gen_ai_": "OpenTelemetry's metrics of model servers",
    "llmos:": "Our own",
}


def page() -> str:
    """The whole page."""
    from llmos.telemetry.metrics import Metrics

    described = sorted(Metrics().described)
    lines = [
        "# Metrics\n",
        "`GET /metrics` is for Prometheus; it takes a key that may read the system. A counter's",
        "samples have `_total` after the name, a histogram's `_bucket`, `_sum` and `_count`.",
        "[telemetry.md](telemetry.md) says how to use them.\n",
    ]
    for prefix, title in TITLES.items():
        lines += [f"## {title}\n", "| name | type | labels | meaning |", "|---|---|---|---|"]
        for metric in described:
            if metric.name.startswith(prefix):
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                doc = metric.doc.replace("|", "/")
                lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {doc} |")
        lines.append("")
    lines += [
        "## Names of vLLM's that are not here\n",
        f"Of vLLM {VLLM}. Its `engine` label is not here either: replicas of a model are counted",
        "together.\n",
        "| name | why |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {why} |" for name, why in LEFT_OUT.items()]
    lines += [
        f"| `{family}*` | another kind of engine, or a connector of vLLM's |" for family in FAMILIES
    ]
    return "\n".join(lines) + "\n"


def missing(names: Iterable[str]) -> set[str]:
    """Those of vLLM's that we neither have nor leave out for a reason."""
    from llmos.telemetry.metrics import Metrics

    ours = {metric.name for metric in Metrics().described}
    return {
        name
        for name in names
        if name not in ours and name not in LEFT_OUT and not name.startswith(FAMILIES)
    }
