"""Planted secrets and prompts are taken out, and what is needed to find a fault stays."""

from __future__ import annotations

import json

import pytest

from llmos.telemetry.redact import REDACTED, Redactor, is_secret_name

PLANTED = "Xq7-unguessable-Zz9"


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {PLANTED}",
        f"authorization=Basic {PLANTED}",
        f"OPENAI_API_KEY={PLANTED}",
        f"token: {PLANTED}",
        f"{{'api_key': '{PLANTED}'}}",
        f'"password": "{PLANTED} with \\" a quote {PLANTED}"',
        f"postgresql://llmos:{PLANTED}@db:5432/jobs",
        f"used sk-{PLANTED} for it",
        f"llmos_{PLANTED}AAAAAAAAAA",
        f"hf_{'a' * 20}{PLANTED}",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        f"ChatPrompt(messages=[{{'role': 'user', 'content': '{PLANTED}'}}])",
        f'{{"prompt": "{PLANTED}"}}',
        f"TextPrompt(text='{PLANTED}')",
        f'the body was {{"input": ["{PLANTED}"]}}',
        f'cut off in the middle: "content": "{PLANTED}',
    ],
)
def test_what_looks_like_a_secret_or_a_prompt_is_taken_out(line: str) -> None:
    assert PLANTED not in Redactor([]).text(line)
    assert REDACTED in Redactor([]).text(line)


def test_known_secrets_are_taken_out_wherever_they_stand() -> None:
    redact = Redactor([PLANTED, PLANTED + "-longer", "", "ab"])
    assert (
        redact.text(f"/home/{PLANTED}/x {PLANTED}-longer ab") == f"/home/{REDACTED}/x {REDACTED} ab"
    )
    assert redact.value({PLANTED: [{"told": f"x{PLANTED}"}]}) == {
        REDACTED: [{"told": f"x{REDACTED}"}]
    }


def test_json_is_judged_by_its_names() -> None:
    told = {
        "api_key": PLANTED,
        "messages": [{"content": PLANTED}],
        "inner": {"text": PLANTED, "jobs_token": PLANTED},
        "prompt_tokens": 7,
        "tokens": 9,
        "content": "",
        "model": "pilot:1",
    }
    made = Redactor([]).value(told)
    assert PLANTED not in json.dumps(made)
    assert (made["prompt_tokens"], made["tokens"], made["content"]) == (7, 9, "")
    assert made["model"] == "pilot:1"


def test_an_object_under_such_a_name_goes_as_a_whole() -> None:
    told = {
        "input": {"language": PLANTED, "deep": {"more": [PLANTED]}},
        "password": {"value": PLANTED},
        "inner": [{"messages": {"0": PLANTED}}, {"hf_token": {"of": {"whom": PLANTED}}}],
        "Content": {"parts": (PLANTED,)},
        "data": {},
        "usage": {"tokens": 9, "prompt": {}},
    }
    assert Redactor([]).value(told) == {
        "input": REDACTED,
        "password": REDACTED,
        "inner": [{"messages": REDACTED}, {"hf_token": REDACTED}],
        "Content": REDACTED,
        "data": {},
        "usage": {"tokens": 9, "prompt": {}},
    }


def test_what_finds_a_fault_stays() -> None:
    line = (
        "worker lost: the worker died (signal 9) request_id=req_019f model=pilot:1 "
        'generated 17 tokens; vllm:time_to_first_token_seconds_bucket{le="0.1"} 4.0'
    )
    assert Redactor([PLANTED]).text(line) == line


@pytest.mark.parametrize("name", ["LLMOS_API_KEY", "HF_TOKEN", "token", "db.password", "a_secret"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["prompt_tokens", "keys", "monkey", "max_tokens", "tokenizer"])
def test_names_of_what_is_no_secret(name: str) -> None:
    assert not is_secret_name(name)
