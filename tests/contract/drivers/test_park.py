"""What every driver that parks owes the kernel that takes its memory away and gives it back."""

from __future__ import annotations

import pytest

from llmos.abi.events import Aborted, Finished
from llmos.errors import Conflict
from tests.contract.drivers.subject import Subject, check_stream
from tests.contract.drivers.verbs import PARKING

pytestmark = [
    pytest.mark.parametrize("subject", PARKING, indirect=True),
    pytest.mark.verb("park"),
]


def test_both_of_our_drivers_do(subject: Subject) -> None:
    assert {"echo", "native"} <= set(PARKING)


def test_it_answers_as_before(subject: Subject) -> None:
    subject.submit("a", 30)
    expected = subject.run()["a"]
    before = subject.driver.memory()
    for _ in range(3):
        subject.driver.park()
        back = subject.driver.unpark()
        assert back.kv_reserved_bytes == before.kv_reserved_bytes
        assert back.weights_bytes == before.weights_bytes
        subject.submit("a", 30)
        assert subject.run()["a"] == expected


def test_parked_memory_is_given_back(subject: Subject) -> None:
    before = subject.driver.memory()
    parked = subject.driver.park()
    assert parked.kv_reserved_bytes == parked.kv_used_bytes == parked.weights_bytes == 0
    assert parked.bound_bytes < before.bound_bytes
    assert subject.driver.memory().bound_bytes < before.bound_bytes
    assert subject.driver.health().num_running == 0


def test_again_is_no_matter(subject: Subject) -> None:
    subject.driver.unpark()
    for _ in range(2):
        subject.driver.park()
    for _ in range(2):
        subject.driver.unpark()
    subject.submit("a", 3)
    assert isinstance(check_stream(subject.run()["a"]), Finished)


@pytest.mark.parametrize("state", ["waiting", "running", "paused", "ending"])
def test_not_with_a_request_inside(subject: Subject, state: str) -> None:
    subject.submit("a", 6)
    said = [] if state == "waiting" else subject.run(2)["a"]
    if state == "paused":
        subject.driver.pause("a")
    if state == "ending":
        subject.driver.abort("a", "no more")
    with pytest.raises(Conflict):
        subject.driver.park()
    subject.driver.unpause("a")
    last = check_stream(said + subject.run()["a"])
    assert isinstance(last, Aborted if state == "ending" else Finished)
    subject.driver.park()


def test_a_snapshot_outlives_it(subject: Subject) -> None:
    subject.submit("a", 12)
    expected = subject.run()["a"]
    subject.submit("a", 12)
    said = subject.run(4)["a"]
    ref = subject.driver.suspend("a")
    subject.driver.park()
    subject.driver.unpark()
    subject.driver.resume(subject.item("a", 12), ref)
    assert said + subject.run()["a"] == expected


def test_unload_while_parked(subject: Subject) -> None:
    subject.driver.park()
    subject.driver.unload()
    assert subject.driver.memory().rss_bytes > 1_000_000
