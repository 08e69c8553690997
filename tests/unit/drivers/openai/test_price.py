from __future__ import annotations

import pytest

from llmos.abi.inference import Usage
from llmos.abi.remote import Price
from llmos.drivers.openai.price import cost_of


def test_without_a_price_there_is_no_cost() -> None:
    assert cost_of(None, Usage(10, 10)) is None


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (Price(2.0, 8.0), Usage(1_000_000, 500_000), 6.0),
        (Price(2.0, 8.0), Usage(0, 0), 0.0),
        (Price(2.0, 8.0), Usage(100, 0, 40), 200e-6),
        (Price(2.0, 8.0, 0.5), Usage(100, 10, 40), (60 * 2.0 + 40 * 0.5 + 10 * 8.0) / 1e6),
        (Price(2.0, 8.0, 0.0), Usage(10, 0, 99), 0.0),
        (Price(), Usage(10, 10), 0.0),
    ],
)
def test_cost(price: Price, usage: Usage, cost: float) -> None:
    assert cost_of(price, usage) == pytest.approx(cost)
