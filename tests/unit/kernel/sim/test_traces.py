"""Reading traces, good and bad; the Azure trace is read whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmos.abi.principal import ServiceClass
from llmos.errors import InvalidRequest
from llmos.kernel.sim.calls import Call, assign, hurry, poisson
from llmos.kernel.sim.traces import read

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
OWN = "at_s,prompt_tokens,output_tokens"


def test_azure() -> None:
    lines = [
        AZURE,
        "2023-11-16 18:15:46.6805900,374,44\r\n",
        "2023-11-16 18:15:50.9951690,396,0\r\n",
        "\r\n",
    ]
    assert list(read(lines)) == [Call(0, 374, 44), Call(4_314_579_000, 396, 1)]


def test_our_own_csv() -> None:
    lines = [
        f"{OWN},tenant,class,model,nice,weight,deadline_ms,max_tokens\n",
        '10.5,7,8,"acme, inc",interactive,m,-3,2.5,1500,9\n',
        "11,7,8,,,,,,,\n",
    ]
    first, second = read(lines)
    assert first.tenant == first.principal == "acme, inc"
    assert (first.at_ns, second.at_ns) == (0, 500_000_000)
    assert (first.service_class, first.nice, first.weight) == (ServiceClass.INTERACTIVE, -3, 2.5)
    assert (first.deadline_ns, first.max_tokens) == (1_500_000_000, 9)
    assert (second.tenant, second.model, second.deadline_ns) == ("tenant-1", "model", None)


def test_json_lines() -> None:
    lines = [
        '{"at_s": 0, "prompt_tokens": 3, "output_tokens": 4, "tenant": "公司"}\n',
        "\n",
        '{"at_s": 0.25, "prompt_tokens": 3, "output_tokens": 4, "class": "batch"}\n',
    ]
    first, second = read(lines)
    assert first.tenant == "公司"
    assert (second.at_ns, second.service_class) == (250_000_000, ServiceClass.BATCH)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "empty"),
        (AZURE, 2, "nothing else"),
        (AZURE + "x,1,1", 2, "not a date"),
        (AZURE + "2023-11-16 18:15:46.68x,1,1", 2, "not a date"),
        (AZURE + "2023-11-16 18:15:46.6,1", 2, "2 columns"),
        (AZURE + "2023-11-16 18:15:46.6,1,1\n2023-11-16 18:15:45.6,1,1", 3, "earlier"),
        (AZURE + "2023-11-16 18:15:46.6,1,-5", 2, "GeneratedTokens"),
        ("a,b\n1,2", 1, "missing"),
        (f"{OWN},colour\n1,1,1,red", 1, "'colour' is not one of"),
        (f"{OWN},tenant,tenant\n1,1,1,a,b", 1, "twice"),
        (f"{OWN}\n1,0,1", 2, "prompt_tokens"),
        (f"{OWN}\n1,1.5,1", 2, "whole"),
        (f"{OWN}\nnan,1,1", 2, "at_s"),
        (f"{OWN}\n1,1e999,1", 2, "prompt_tokens"),
        (f"{OWN},class\n1,1,1,urgent", 2, "class 'urgent'"),
        (f"{OWN},nice\n1,1,1,99", 2, "nice"),
        (f'{OWN},tenant\n1,1,1,"a', 2, "unexpected end"),
        ('{"at_s": 1}', 1, "missing"),
        ('{"at_s": 1, "prompt_tokens": true, "output_tokens": 1}', 1, "prompt_tokens"),
        ('{"at_s": 1, "prompt_tokens": 1, "output_tokens": 1, "tenant": 5}', 1, "tenant"),
        ('{"at_s": 1', 1, "not JSON"),
        ('{"at_s": 1, "prompt_tokens": 1, "output_tokens": 1}\n[1]', 2, "not a JSON object"),
    ],
)
def test_bad_traces_name_the_line(text: str, line: int, what: str) -> None:
    with pytest.raises(InvalidRequest, match=f"line {line}: ") as caught:
        list(read(text.splitlines(keepends=True)))
    assert what in caught.value.message
    assert caught.value.details == {"line": line}


def test_the_whole_azure_trace(test_data: Path) -> None:
    path = test_data / "traces" / "AzureLLMInferenceTrace_conv.csv"
    with path.open(newline="") as lines:
        calls = list(read(lines))
    assert len(calls) == 19366
    assert calls[0] == Call(0, 374, 44)
    assert 3400e9 < calls[-1].at_ns < 3600e9
    assert [c.at_ns for c in calls] == sorted(c.at_ns for c in calls)


def test_made_up_calls() -> None:
    calls = list(poisson(random.Random(1), 2000, 4.0, 100, 50))
    assert calls == list(poisson(random.Random(1), 2000, 4.0, 100, 50))
    assert calls[-1].at_ns / 1e9 == pytest.approx(500, rel=0.1)
    assert sum(c.prompt_tokens for c in calls) / 2000 == pytest.approx(101, rel=0.1)
    assert min(c.output_tokens for c in calls) >= 1
    drawn = list(assign(calls, random.Random(2), [10, 1], [(ServiceClass.BATCH, 1)]))
    share = sum(c.tenant == "tenant-1" for c in drawn) / 2000
    assert share == pytest.approx(10 / 11, rel=0.05)
    assert {c.service_class for c in drawn} == {ServiceClass.BATCH}
    assert next(hurry(calls, 2.0)).at_ns == pytest.approx(calls[0].at_ns / 2, abs=1)
