"""Policies as plugins: the four that ship, and what a wrong name is told."""

from __future__ import annotations

import pytest

from llmos.abi.policy import Tuning
from llmos.boot import policy_named, program_named
from llmos.errors import ConfigError, PluginError
from llmos.plugins import entry_points

SHIPPED = {"fair", "fifo", "priority", "round-robin"}


def test_each_policy_that_ships_can_be_chosen() -> None:
    assert set(entry_points.names(entry_points.POLICIES)) >= SHIPPED
    for name in SHIPPED:
        assert len(policy_named(name)(Tuning())) == 0


@pytest.mark.parametrize("name", ["unfair", "FAIR", "", "公平", "x" * 5000, "fair:make"])
def test_a_wrong_name_is_told_the_setting_and_every_right_one(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_named(name)
    message = caught.value.message
    assert message.startswith("kernel.policy: llmos.policies has ")
    assert all(right in message for right in SHIPPED)
    assert ("did you mean 'fair'" in message) == (name in {"unfair", "fair:make"})


def test_what_is_installed_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every job: the files may not be there to be opened."""

    def refuse(**_: str) -> None:
        raise OSError(24, "Too many open files")

    names = entry_points.names(entry_points.PROGRAMS)
    monkeypatch.setattr(entry_points, "entry_points", refuse)
    assert entry_points.names(entry_points.PROGRAMS) == names
    assert program_named("drill").name == "drill"
    with pytest.raises(PluginError):
        program_named("nothing")
