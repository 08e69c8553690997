"""What every driver owes the requests that share its batch."""

from __future__ import annotations

import msgspec
import pytest

from llmos.abi.events import Finished, Tokens
from llmos.abi.inference import Sampling
from tests.contract.drivers.subject import Subject, check_stream, num_tokens

pytestmark = pytest.mark.verb("batch")

TEXTS = ["a", "hello the abc", "the the the the dot", "cab. to the cot " * 4]


def said(subject: Subject, name: str, text: str, num: int) -> tuple[list[int], str]:
    """Alone."""
    subject.submit(name, num, text)
    return words(subject.run()[name])


def words(events: list[object]) -> tuple[list[int], str]:
    tokens = [event for event in events if isinstance(event, Tokens)]
    return [i for t in tokens for i in t.token_ids], "".join(t.text for t in tokens)


def test_neighbours_do_not_change_an_answer(subject: Subject) -> None:
    alone = {f"r{n}": said(subject, f"r{n}", text, 8 + n) for n, text in enumerate(TEXTS)}
    for n, text in enumerate(TEXTS):
        subject.submit(f"r{n}", 8 + n, text)
    together = {name: words(list(events)) for name, events in subject.run().items()}
    assert together == alone


def test_exact_answers_do_not_depend_on_neighbours(subject: Subject) -> None:
    """Of every driver whose answer says that it was deterministic, as those that declare the mode
    must; drawn by chance at a temperature where many tokens are likely."""
    warm = subject.kit.warmest
    sampling = Sampling(temperature=warm, seed=5, max_tokens=60, ignore_eos=True)
    item = subject.item("exact", 60)
    item = msgspec.structs.replace(item, sampling=sampling, deterministic=True)
    subject.driver.submit(item)
    alone = subject.run()["exact"]
    last = check_stream(alone)
    assert isinstance(last, Finished)
    if subject.driver.capabilities.deterministic:
        assert last.deterministic is True
    for n, text in enumerate(TEXTS):
        subject.submit(f"r{n}", 10 + 7 * n, text)
    subject.run(3)
    subject.driver.submit(item)
    events = subject.run()["exact"]
    assert isinstance(check_stream(events), Finished)
    if last.deterministic:
        assert events == alone


def test_rows_move_in_one_step(subject: Subject) -> None:
    """A batch is stepped together: nobody waits for another's end."""
    for n, text in enumerate(TEXTS):
        subject.submit(f"r{n}", 20, text)
    seen: dict[str, int] = {}
    for _ in range(200):
        if len(seen) == len(TEXTS):
            break
        for event in subject.step():
            seen[event.request_id] = seen.get(event.request_id, 0) + 1
    assert set(seen) == {f"r{n}" for n in range(len(TEXTS))}
    assert max(seen.values()) < 20  # nobody has ended yet
    subject.run()


def test_a_row_that_ends_is_given_on_at_once(subject: Subject) -> None:
    for name in "abcd":
        subject.submit(name, 30)
    subject.run(2)
    subject.submit("e", 2)
    assert "e" not in subject.run(2)
    subject.driver.abort("b", "room")
    events = subject.run(4)
    assert num_tokens(events["e"]) == 2
    assert isinstance(check_stream(events["e"]), Finished)
    subject.run()


def test_many_more_than_rows(subject: Subject) -> None:
    for n in range(60):
        subject.submit(f"r{n}", 1 + n % 5, TEXTS[n % 4])
    events = subject.run()
    assert len(events) == 60
    for n in range(60):
        last = check_stream(events[f"r{n}"])
        assert isinstance(last, Finished)
        assert last.usage.completion_tokens == 1 + n % 5
