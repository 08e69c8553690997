"""How what is printed is compared with a page. Nothing is run here."""

from __future__ import annotations

import pytest

from tests.system.docs.blocks import Block
from tests.system.docs.outputs import differs
from tests.system.docs.test_pages import compare

STATUS = """ready  llmos 0.1.0 at http://127.0.0.1:8400
up ...
memory: ...
"""


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        (STATUS, "ready llmos 0.2.0 at http://127.0.0.1:41234\nup 3 s, epoch 1\nmemory: 1 of 2\n"),
        ("a,positive,0.98,\n", "a,positive,0.96,\n"),
        ("job_0123456789abcdef of 3", "job_fedcba9876543210 of 17"),
        ("at 12:30 ... done", "at 07:01  it is done"),
        ("", ""),
    ],
)
def test_what_is_the_same(wanted: str, printed: str) -> None:
    assert differs(wanted, printed) == ""


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        ("a,positive,0.98,\n", "a,positive,0.58,\n"),
        ("a,positive,0.98,\n", "a,negative,0.98,\n"),
        ("score 0.98", "score 1"),
        ("something", ""),
        ("", "something"),
        ("up ...\nmemory: ...\n", "up 3 s\nan error\nmemory: 1\n"),
        ("up ...", "up 3 s\nan error"),
    ],
)
def test_what_is_not(wanted: str, printed: str) -> None:
    assert differs(wanted, printed)


def test_a_command_that_prints_nothing_is_compared_and_one_not_run_is_not() -> None:
    block = Block("docs/x.md", "text", "something\n", 3, is_output=True)
    compare(block, None)
    with pytest.raises(AssertionError, match=r"docs/x\.md:3"):
        compare(block, "")
