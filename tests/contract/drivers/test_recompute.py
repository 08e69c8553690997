"""What every driver owes a request whose tokens are known and whose KV is lost."""

from __future__ import annotations

from array import array

import msgspec
import pytest

from llmos.abi.events import Finished, FinishReason, Tokens
from llmos.abi.inference import WorkItem
from llmos.errors import InvalidRequest, LLMOSError
from tests.contract.drivers.subject import Subject, check_stream, num_tokens

pytestmark = pytest.mark.verb("recompute")

NUM_TOKENS = 12


def drawn(subject: Subject, num: int = NUM_TOKENS) -> list[int]:
    """The tokens of request `a`, uninterrupted."""
    subject.submit("a", num)
    events = subject.run()["a"]
    return [i for event in events if isinstance(event, Tokens) for i in event.token_ids]


def again(item: WorkItem, generated: list[int]) -> WorkItem:
    return msgspec.structs.replace(item, generated=array("i", generated).tobytes())


@pytest.mark.parametrize("num_before", [1, 5, NUM_TOKENS - 1])
def test_it_goes_on(subject: Subject, num_before: int) -> None:
    expected = drawn(subject)
    item = subject.item("a", NUM_TOKENS)
    subject.driver.submit(again(item, expected[:num_before]))
    events = subject.run()["a"]
    *said, last = events
    assert isinstance(last, Finished)
    assert last.reason in FinishReason
    assert num_tokens(said) == NUM_TOKENS - num_before
    assert last.usage.completion_tokens == NUM_TOKENS
    assert last.usage.prompt_tokens == len(item.tokens) // 4
    assert last.deterministic is subject.is_fused
    assert [i for e in said if isinstance(e, Tokens) for i in e.token_ids] == expected[num_before:]


def test_one_that_was_at_its_end_only_ends(subject: Subject) -> None:
    expected = drawn(subject)
    subject.driver.submit(again(subject.item("a", NUM_TOKENS), expected))
    assert subject.driver.wait_s() == 0.0
    (last,) = subject.run()["a"]
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens == NUM_TOKENS


def test_what_cannot_have_been_generated_is_refused(subject: Subject) -> None:
    item = subject.item("a", 3)
    for generated in ([subject.kit.outside], [-1], [5, 6, 7, 8]):
        with pytest.raises(InvalidRequest):
            subject.driver.submit(again(item, generated))
    with pytest.raises(InvalidRequest):
        subject.driver.submit(msgspec.structs.replace(item, generated=b"\5\0\0\0\6"))
    assert subject.driver.wait_s() is None
    subject.driver.submit(item)
    assert isinstance(check_stream(subject.run()["a"]), Finished)


def check_that_it_stays(subject: Subject, num_steps: int) -> None:
    """A driver without snapshots refuses, and goes on with the request as if nothing was asked."""
    subject.driver.submit(subject.item("a", NUM_TOKENS))
    said = subject.run(num_steps).get("a", [])
    with pytest.raises(LLMOSError):
        subject.driver.suspend("a")
    said += subject.run()["a"]
    assert isinstance(check_stream(said), Finished)
    assert num_tokens(said) == NUM_TOKENS


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_it_may_be_suspended_again(subject: Subject, num_steps: int) -> None:
    if not subject.driver.capabilities.snapshots:
        check_that_it_stays(subject, num_steps)
        return
    expected = drawn(subject)
    item = again(subject.item("a", NUM_TOKENS), expected[:4])
    subject.driver.submit(item)
    said = subject.run(num_steps).get("a", [])
    ref = subject.driver.suspend("a")
    subject.driver.resume(item, ref)
    *said, last = said + subject.run()["a"]
    assert [i for e in said if isinstance(e, Tokens) for i in e.token_ids] == expected[4:]
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens == NUM_TOKENS
    assert last.deterministic is subject.is_fused
