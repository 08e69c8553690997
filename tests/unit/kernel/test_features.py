"""What a driver cannot do is refused before anything runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmos.abi.driver import FEATURES, DriverEntry
from llmos.abi.inference import Grammar, Sampling
from llmos.errors import PermissionDenied, UnsupportedParameter
from llmos.kernel.config import KernelConfig
from llmos.kernel.placement import Placement
from tests.unit.kernel.test_placement import placement_of, version

WISHES: dict[str, Any] = {
    "grammar": Grammar("regex", "a"),
    "logit_bias": [(1, 2.0)],
    "logprobs": 0,
    "prompt_logprobs": 0,
}


def _placement(features: list[str]) -> Placement:
    def driver_of(name: str) -> DriverEntry:
        return DriverEntry(name, "x:y", features=features)

    return placement_of(KernelConfig(), 1 << 30, driver_of)


@pytest.mark.parametrize("name", FEATURES)
def test_a_wish_needs_its_feature(name: str) -> None:
    wish = Sampling(**{name: WISHES[name]})
    _placement([name]).check(version(), wish)
    others = [other for other in FEATURES if other != name]
    with pytest.raises(UnsupportedParameter) as raised:
        _placement(others).check(version(), wish)
    assert raised.value.param == name
    assert version().driver in raised.value.message


def test_who_wishes_nothing_needs_nothing() -> None:
    _placement([]).check(version(), Sampling(temperature=0.5, seed=1, logit_bias=[]))


def test_a_host_that_is_allowed_no_more_is_asked_no_more() -> None:
    """Models outlive the settings under which they were registered."""
    placement = placement_of(
        KernelConfig(), 1 << 30, lambda name: DriverEntry(name, "x:y"), "good.example:443".__eq__
    )
    placement.check(version(), Sampling())
    hosts = ["good.example:443", "old.example:443"]
    placement.check(msgspec.structs.replace(version(), egress=hosts[:1]), Sampling())
    with pytest.raises(PermissionDenied, match=r"old\.example:443 is not one of registry\.egress"):
        placement.check(msgspec.structs.replace(version(), egress=hosts), Sampling())
