"""Free JSON of a body: what would not come back as it went in is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmos.api.bodies.jobs import SpecBody
from llmos.errors import InvalidRequest
from llmos.shapes.inputs import read_chat, read_nested, read_plain
from llmos.shapes.kinds import read_infer
from llmos.shapes.responses import read_response
from llmos.shapes.strict_json import parse_object
from llmos.shapes.tasks import TaskBody


@pytest.mark.parametrize("number", ["1e999", "-1e999", "18446744073709551616", "1" * 400])
@pytest.mark.parametrize("where", ['{"x": %s}', '{"x": [1.5, {"y": %s}]}'])
def test_numbers_that_would_not_last(number: str, where: str) -> None:
    body = parse_object(b'{"program": "drill", "inputs": %s}' % (where % number).encode())
    with pytest.raises(InvalidRequest) as refusal:
        read_plain(SpecBody, body)
    assert refusal.value.param == "inputs"


TOOL = '{"type": "function", "function": {"name": "f", "parameters": {"default": NUMBER}}}'
FLAT = '{"type": "function", "name": "f", "parameters": {"default": NUMBER}}'

SENT_ON: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "inputs": (
        '{"model": "m", "inputs": [{"text": NUMBER}]}',
        read_infer,
    ),
    "input.items": (
        '{"type": "generate", "input": {"items": [{"text": NUMBER}]}}',
        lambda body: read_nested(TaskBody, body),
    ),
    "tools.0.function.parameters": (
        '{"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [' + TOOL + "]}",
        lambda body: read_chat(body, 1),
    ),
    "tools.0.parameters": (
        '{"model": "m", "input": "hi", "tools": [' + FLAT + "]}",
        lambda body: read_response(body, 1),
    ),
}
"""Whatever reaches a driver as it is: inputs of items and of tasks, parameters of tools."""


@pytest.mark.parametrize("number", ["1e999", "-1e999", "18446744073709551616"])
@pytest.mark.parametrize("param", SENT_ON)
def test_numbers_that_would_not_last_elsewhere(param: str, number: str) -> None:
    text, read = SENT_ON[param]
    with pytest.raises(InvalidRequest) as refusal:
        read(parse_object(text.replace("NUMBER", number).encode()))
    assert refusal.value.param == param
    read(parse_object(text.replace("NUMBER", "0.5").encode()))


def test_numbers_that_last() -> None:
    text = b'{"program": "drill", "inputs": {"x": [1e308, -9223372036854775808, 0.1]}}'
    assert read_plain(SpecBody, parse_object(text)).inputs == {"x": [1e308, -(2**63), 0.1]}
