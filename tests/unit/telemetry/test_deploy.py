"""The dashboard and the alerts name what there is, in PromQL that parses; vLLM's names lead
somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from llmos.telemetry.metrics import Metrics
from tools.dashboard import dashboard
from tools.metrics_page import missing, page

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "telemetry"
VLLM = Path(__file__).with_name("vllm_names.txt").read_text().split()
_NAME = re.compile(r"\b(?:vllm:|llmos:|gen_ai_)\w+")
_SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


def samples() -> dict[str, tuple[str, ...]]:
    """Names of samples in `/metrics`, with their labels."""
    return {
        metric.name + suffix: metric.labels
        for metric in Metrics().described
        for suffix in _SUFFIXES[metric.kind]
    }


def dashboard_queries() -> Iterator[str]:
    made = json.loads((FOLDER / "grafana.json").read_text())
    for panel in made["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


QUERIES = sorted({*dashboard_queries(), *(rule["expr"] for rule in rules())})


def test_what_is_described_is_what_is_rendered() -> None:
    text = Metrics().render()[0].decode()
    families = set(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    described = {
        (m.name + ("_total" if m.kind == "counter" else ""), m.kind) for m in Metrics().described
    }
    created = {(name, kind) for name, kind in families if name.endswith("_created")}
    assert families - created == described


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_parses_and_names_what_there_is(query: str) -> None:
    promql_parser.parse(query)
    named = set(_NAME.findall(re.sub(r'"[^"]*"', "", query)))
    assert named or query.startswith("up{")
    assert named <= set(samples())


@pytest.mark.parametrize("query", QUERIES)
def test_every_label_of_a_query_is_a_label_of_its_metric(query: str) -> None:
    every = samples()
    for name, chosen in re.findall(r"((?:vllm:|llmos:|gen_ai_)\w+)\{([^}]*)\}", query):
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))
        assert used <= {*every[name], "le"}, name
    grouped = {
        label.strip() for keys in re.findall(r"by \(([^)]*)\)", query) for label in keys.split(",")
    }
    for name in _NAME.findall(re.sub(r'"[^"]*"', "", query)):
        assert grouped <= {*every[name], "le"}, name


def test_a_query_that_is_wrong_is_found_out() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql_parser.parse("sum by (le (rate(x[5m]))")
    assert "llmos:no_such" not in samples()


def test_the_dashboard_is_the_one_that_is_written_down() -> None:
    assert (FOLDER / "grafana.json").read_text() == dashboard()
    made = json.loads(dashboard())
    ids = [panel["id"] for panel in made["panels"]]
    assert len(ids) == len(set(ids)) > 20
    titles = [panel["title"] for panel in made["panels"]]
    assert len(titles) == len(set(titles))


def test_alerts_have_a_word_for_people_and_a_severity() -> None:
    assert len(rules()) == len({rule["alert"] for rule in rules()}) > 10
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label == "instance" or label in rule["expr"] or label == "device"


def test_prometheus_finds_the_rules() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    assert all((FOLDER / name).is_file() for name in config["rule_files"])
    assert {c["job_name"] for c in config["scrape_configs"]} == {"llmos"}


def test_every_name_of_vllms_is_here_or_left_out_for_a_reason() -> None:
    assert len(VLLM) > 60
    assert missing(VLLM) == set()
    assert missing(["vllm:no_such_metric"]) == {"vllm:no_such_metric"}
    assert "`vllm:cache_config_info`" in page()
