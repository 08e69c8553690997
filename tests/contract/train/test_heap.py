"""Freed memory stays with the process: its pages are not asked for again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from llmos.programs.train.heap import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
def touch():
    a, b = bytearray(9 << 20), bytearray(6 << 20)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")
def test_pages_are_asked_for_once() -> None:
    assert faults("kept") < faults("as it is") / 10
