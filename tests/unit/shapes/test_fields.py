"""Free JSON of a body: what would not come back as it went in is refused."""

from __future__ import annotations

import pytest

from llmos.api.bodies.jobs import SpecBody
from llmos.errors import InvalidRequest
from llmos.shapes.inputs import read_plain
from llmos.shapes.strict_json import parse_object


@pytest.mark.parametrize("number", ["1e999", "-1e999", "18446744073709551616", "1" * 400])
@pytest.mark.parametrize("where", ['{"x": %s}', '{"x": [1.5, {"y": %s}]}'])
def test_numbers_that_would_not_last(number: str, where: str) -> None:
    body = parse_object(b'{"program": "drill", "inputs": %s}' % (where % number).encode())
    with pytest.raises(InvalidRequest) as refusal:
        read_plain(SpecBody, body)
    assert refusal.value.param == "inputs"


def test_numbers_that_last() -> None:
    text = b'{"program": "drill", "inputs": {"x": [1e308, -9223372036854775808, 0.1]}}'
    assert read_plain(SpecBody, parse_object(text)).inputs == {"x": [1e308, -(2**63), 0.1]}
