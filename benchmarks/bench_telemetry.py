"""What telemetry costs in throughput: traces and a log line of every request, against neither.

Servers that differ in nothing but their settings stand side by side and are loaded one after
another, in an order that turns with every repetition; each figure is the ratio of runs a moment
apart. `off again` is a second server without telemetry: how far its ratio is from 1 is what
cannot be told from nothing here. Metrics are always on, and scraped in no arm.

The echo driver costs next to nothing, so what is seen there is the worst that telemetry can do;
the bundled model is the smallest real one.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from benchmarks import harness
from benchmarks.load import Plan
from benchmarks.serving import HOST, Server, load, peak, serving

OFF = "telemetry off"
ON = ("--set", "telemetry.log_requests=true", "--set", "telemetry.traces=file")
ARMS: dict[str, tuple[str, ...]] = {
    OFF: (),
    "every request traced and logged": ON,
    "1 in 10 traced, every one logged": (*ON, "--set", "telemetry.trace_ratio=0.1"),
    "off again": (),
}
MESSAGES = [{"role": "user", "content": "a"}]
CONNECTIONS = 32
ECHO_STREAMS, ECHO_TOKENS = 32, 500
PILOT_STREAMS, PILOT_TOKENS = 8, 128


def requests_per_s(server: Server, scale: float) -> float:
    request = server.request({"model": "echo", "messages": MESSAGES})
    return peak(server, request, CONNECTIONS, max(1, round(3 * scale)))


def echo_tokens_per_s(server: Server, scale: float) -> float:
    count = max(10, round(ECHO_TOKENS * scale))
    body = {"model": "echo", "llmos": {"driver": {"tokens": count}}}
    return _tokens_per_s(server, body, ECHO_STREAMS, count)


def pilot_tokens_per_s(server: Server, scale: float) -> float:
    count = max(10, round(PILOT_TOKENS * scale))
    body = {"model": "pilot", "temperature": 0, "max_tokens": count, "ignore_eos": True}
    return _tokens_per_s(server, body, PILOT_STREAMS, count)


def _tokens_per_s(server: Server, body: dict[str, Any], streams: int, count: int) -> float:
    asked = {"stream": True, "stream_options": {"include_usage": True}, "messages": MESSAGES}
    outcome = load(Plan("stream", HOST, server.port, server.request({**asked, **body}), streams))
    if outcome.tokens != streams * count:
        raise RuntimeError(f"{outcome.tokens} tokens came of {streams} x {count}")
    return outcome.tokens / outcome.wall_s


FIGURES = {
    f"one-token answers, {CONNECTIONS} connections": ("requests/s", requests_per_s),
    f"echo, {ECHO_STREAMS} streams": ("tokens/s", echo_tokens_per_s),
    f"pilot, {PILOT_STREAMS} streams": ("tokens/s", pilot_tokens_per_s),
}


def measure(repetitions: int, scale: float) -> dict[tuple[str, str], list[float]]:
    """Values by figure and arm."""
    found: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        servers = {
            arm: stack.enter_context(serving("--preload", "echo", "--preload", "pilot", *options))[
                0
            ]
            for arm, options in ARMS.items()
        }
        for repetition in range(-1, repetitions):  # the first one warms up
            arms = list(ARMS)
            arms = arms[repetition % len(arms) :] + arms[: repetition % len(arms)]
            for figure, (_, run) in FIGURES.items():
                for arm in arms:
                    value = run(servers[arm], scale)
                    if repetition >= 0:
                        found.setdefault((figure, arm), []).append(value)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="shorten the runs for a trial")
    arguments = parser.parse_args()
    result = harness.Result("telemetry", harness.command("telemetry"))
    found = measure(arguments.repetitions, arguments.scale)
    for figure, (unit, _) in FIGURES.items():
        for arm in ARMS:
            if arm != OFF:
                values, peer = found[figure, arm], found[figure, OFF]
                result.add(harness.paired(f"{figure}: {arm}", unit, values, OFF, peer))
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
