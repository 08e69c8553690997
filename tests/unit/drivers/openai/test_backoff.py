from __future__ import annotations

import pytest

from llmos.abi.remote import Retries
from llmos.drivers.openai.backoff import delay_s, retry_after_s
from llmos.drivers.openai.limits import MAX_RETRY_AFTER_S

RETRIES = Retries(first_delay_s=0.5, max_delay_s=6.0)


def test_it_doubles_up_to_a_bound() -> None:
    assert [delay_s(RETRIES, n, 0.0) for n in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 6.0, 6.0]
    assert delay_s(RETRIES, 10_000, 0.0) == 6.0


def test_chance_takes_up_to_half() -> None:
    assert delay_s(RETRIES, 2, 0.5) == 0.75
    assert 0.5 < delay_s(RETRIES, 2, 0.999) < 0.501


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("1e9", MAX_RETRY_AFTER_S),
        ("inf", MAX_RETRY_AFTER_S),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, now_s=10.0) == wait_s
