"""What processes hold, of this one alone and with its children."""

from __future__ import annotations

import subprocess
import sys

from llmos.drivers.resident import read_family, read_resident

HELD = 64 << 20
CHILD = (
    f"import sys; held = bytes(range(256)) * {HELD // 256}; print(len(held), flush=True); input()"
)
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=0, stdout=1)
child.wait()
"""


def test_children_and_theirs_are_counted() -> None:
    before = read_family()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == HELD
        during = read_family()
        process.communicate(b"\n")
    assert during.anonymous_bytes - before.anonymous_bytes > HELD
    assert during.peak_bytes - before.peak_bytes > HELD
    assert read_family().rss_bytes < during.rss_bytes
    own = read_resident()
    assert 0 < own.rss_bytes <= own.peak_bytes
