"""What a peer's program and its parent say to each other: one JSON object per line.

The program is started as `python -m benchmarks.engine.peers.NAME SETUP` (a JSON `Setup`), says
`{"ready": {...}}` once its model is loaded and answers each
`{"requests": [{"prompt": [ids], "num_new": n, "due_s": s}]}` with `{"token_s": [[s, ...], ...]}`:
when each token of each request was there, in seconds from the start of the run. Standard library
only: it runs in every environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO, Any, Protocol

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Setup:
    """What to load and for how much. `cache` is a folder for what the peer makes of the model."""

    model: str
    precision: str
    num_threads: int
    num_slots: int
    context_tokens: int
    cache: str


@dataclass(frozen=True)
class Request:
    """Greedy, to exactly `num_new` tokens whatever they are; not before `due_s`."""

    prompt: list[int]
    num_new: int
    due_s: float = 0.0


class Batcher(Protocol):
    """An engine that takes requests at any time and works in steps."""

    def add(self, index: int, request: Request) -> None: ...

    def step(self) -> list[tuple[int, int]]:
        """One iteration: which requests got how many tokens."""
        ...


Run = Callable[[list[Request]], list[list[float]]]


def drive(batcher: Batcher, requests: list[Request]) -> list[list[float]]:
    """Add what is due, step until every request has its tokens."""
    waiting = sorted(range(len(requests)), key=lambda index: -requests[index].due_s)
    token_s: list[list[float]] = [[] for _ in requests]
    missing = sum(request.num_new for request in requests)
    began = time.perf_counter()
    num_open = 0
    while missing > 0:
        now_s = time.perf_counter() - began
        while waiting and requests[waiting[-1]].due_s <= now_s:
            index = waiting.pop()
            batcher.add(index, requests[index])
            num_open += 1
        if not num_open:
            time.sleep(max(0.0, requests[waiting[-1]].due_s - now_s))
            continue
        for index, count in batcher.step():
            at_s = time.perf_counter() - began
            token_s[index].extend([at_s] * count)
            missing -= count
            num_open -= len(token_s[index]) == requests[index].num_new
    return token_s


def serve(load: Callable[[Setup], tuple[Run, dict[str, Any]]]) -> int:
    """The program's side, to the end of its input. What libraries print goes to stderr."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setup = Setup(**json.loads(sys.argv[1]))
    run, facts = load(setup)
    say(answers, {"ready": facts})
    for line in sys.stdin:
        requests = [Request(**request) for request in json.loads(line)["requests"]]
        say(answers, {"token_s": run(requests)})
    return 0


def die_with_parent() -> None:
    """Frozen between runs, a program whose parent was killed would never see its input end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def say(stream: IO[str], message: dict[str, Any]) -> None:
    """One line, at once."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def encode_setup(setup: Setup) -> str:
    """The argument of a program."""
    return json.dumps(asdict(setup))


def made(cache: str, name: str) -> tuple[str, bool]:
    """A path in the peer's cache, and whether it is there already."""
    os.makedirs(cache, exist_ok=True)  # noqa: PTH103 - pathlib's twin
    path = os.path.join(cache, name)  # noqa: PTH118
    return path, os.path.exists(path)  # noqa: PTH110
