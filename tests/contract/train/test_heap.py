"""Freed memory stays with the process; what is kept for sizes that come once does not add up."""

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
    return [bytearray(3 << 20) for _ in range(6)]
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


HOLES = """
import ctypes, sys
from llmos.programs.train.heap import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
made = [bytearray(6 << 20) for _ in range(60)]
del made[::2]  # as what is kept for the backward pass lies between what is not
before = resident()
made += [bytearray(7 << 20) for _ in range(30)]
print(before, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")
def test_large_pieces_leave_no_holes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES, "kept"], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before < 30 * (6 << 20) + (64 << 20)
    assert after - before < 30 * (7 << 20) + (32 << 20)


SHAPES = """
import resource, sys
import torch
from llmos.programs.train.heap import keep_few_shapes
if sys.argv[1] == "few":
    keep_few_shapes()
torch.set_num_threads(1)
def learn(size):
    x = torch.zeros(32, size, 128, requires_grad=True)
    torch.nn.functional.gelu(x).sum().backward()
def highest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
learn(200)
before = highest()
for size in range(20, 200):
    learn(size)
print(highest() - before)
"""


def grown(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SHAPES, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_sizes_that_come_once_are_forgotten() -> None:
    """Where oneDNN computes at all: elsewhere neither grows."""
    assert grown("few") <= max(grown("all") / 2, 48 << 20)
