"""Two 0.4 B models that do not fit together, asked by turns: how long one takes.

One client, one request at a time. Ours keeps the model that makes room parked. Its peers: the same
build that stops a model and loads it anew, without and with a warm spare process, and a process for
each model, as a proxy in front of `llama-server` has it: the client stops the whole server and
starts one with the other model. Systems run round by round, one at a time.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks import models
from benchmarks.harness import Result, paired, single
from benchmarks.memory import system
from benchmarks.memory.system import Machine, Options

MODEL = "0.4b"
NAMES = ("first", "second")
NUM_TOKENS = 16
PROMPT_TOKENS = 32
BUDGET = ("kernel.memory_budget_bytes=2400000000", "kernel.max_context_tokens=512")
"""Room for one of them, and for what the other keeps while it is parked."""

SYSTEMS = {
    "parking": ("kernel.warm_spare=true",),
    "unload and cold reload": ("kernel.parking=false", "kernel.warm_spare=false"),
    "unload, warm spare": ("kernel.parking=false", "kernel.warm_spare=true"),
    "a process per model": ("kernel.warm_spare=false",),
}
OURS, COLD, SPARE, PROCESS = SYSTEMS
AIM = 2.7
WARM_UP_TURNS = (4, 2)
"""Of the first round, and of the others: by then both models have been loaded."""


@dataclass
class Turn:
    """Seconds from the client's decision to the end, to the first token, and queued."""

    whole_s: float
    first_s: float
    queued_s: float
    request_id: str


@dataclass
class Run:
    """One system: its turns, and what each round of them took."""

    name: str
    machine: Machine
    turns: list[Turn] = field(default_factory=list)
    rounds_s: list[float] = field(default_factory=list)
    story: str = ""


def rows(result: Result, options: Options) -> None:
    """Each system's turns, ours beside them."""
    num_rounds, num_turns = (4, 10) if options.full else (2, 6)
    if options.small:
        num_rounds, num_turns = 1, 2
    with contextlib.ExitStack() as stack:
        runs = [Run(name, stack.enter_context(system.machine())) for name in SYSTEMS]
        for number in range(num_rounds):
            for run in runs:
                _round(run, number, num_turns)
    _report(result, {run.name: run for run in runs})


def _round(run: Run, number: int, num_turns: int) -> None:
    """Start it, warm it up, take the turns, stop it."""
    settings = (*BUDGET, *SYSTEMS[run.name])
    run.machine.start(*settings, options=_preload(run.name, number, NAMES[1]))
    if number == 0:
        run.machine.pull(**dict.fromkeys(NAMES, models.folder(MODEL)))
    list(_turns(run, WARM_UP_TURNS[number > 0]))
    began = time.perf_counter()
    run.turns += _turns(run, num_turns)
    run.rounds_s.append(time.perf_counter() - began)
    run.machine.stop()


def _preload(name: str, number: int, model: str) -> tuple[str, ...]:
    """A process per model has its one from the start, once it is known to the registry."""
    return ("--preload", model) if name == PROCESS and number else ()


def _turns(run: Run, count: int) -> Iterator[Turn]:
    for index in range(count):
        model = NAMES[index % 2]
        began = time.perf_counter()
        if run.name == PROCESS:
            run.machine.stop()
            run.machine.start(options=("--preload", model))
        with run.machine.client() as client:
            turn = ask(client, model, began)
            run.story = run.story or story(client, turn) if index == count - 1 else run.story
        yield turn


def ask(client: httpx.Client, model: str, began: float) -> Turn:
    """One streamed answer. Raises RuntimeError for any other."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": models.tokens(PROMPT_TOKENS, 1, models.SHAPES[MODEL].vocab_size),
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    first_s, last = 0.0, ""
    with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{model}: {answer.read().decode()}")
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                first_s, last = first_s or time.perf_counter() - began, line
    llmos = json.loads(last.removeprefix("data: ")).get("llmos")
    if llmos is None:
        raise RuntimeError(f"{model}: the stream ended with {last}")
    whole_s = time.perf_counter() - began
    return Turn(whole_s, first_s, llmos["timing"]["queued_ms"] / 1e3, llmos["request_id"])


def story(client: httpx.Client, turn: Turn) -> str:
    """Why it waited, with the milliseconds between decisions."""
    found = system.get(client, f"/os/v1/processes/{turn.request_id}")
    began = found["info"]["created_ns"]
    lines = [f"{(d['at_ns'] - began) / 1e6:.0f} ms {d['reason']}" for d in found["decisions"]]
    return "; ".join(lines)


def _report(result: Result, runs: dict[str, Run]) -> None:
    ours = runs[OURS]
    count = len(ours.turns)
    for name in (COLD, SPARE, PROCESS):
        run, what = runs[name], f"two {MODEL} models in turn, {count} turns of {NUM_TOKENS} tokens"
        pairs = (
            ("a turn", [t.whole_s for t in ours.turns], [t.whole_s for t in run.turns]),
            ("a turn's first token", [t.first_s for t in ours.turns],
             [t.first_s for t in run.turns]),
            ("a round of turns", ours.rounds_s, run.rounds_s),
        )  # fmt: skip
        for part, mine, theirs in pairs:
            result.add(paired(f"{what}: {part}", "s", mine, name, theirs))
        gains = [b / a for a, b in zip(ours.rounds_s, run.rounds_s, strict=True)]
        aim = f" (aim {AIM})" if name == COLD else ""
        result.add(single(f"{what}: {name} takes so many times ours{aim}", "times", gains))
    for run in runs.values():
        queued = [t.queued_s for t in run.turns]
        result.add(single(f"queued until the model is ready, {run.name}", "s", queued))
        print(f"{run.name}, one turn: {run.story}")
