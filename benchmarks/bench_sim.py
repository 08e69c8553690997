"""The simulator at work: many small seeds with every promise watched, and the whole Azure trace.

`--part seeds` runs small random worlds (see `llmos.kernel.sim.small`) in `--jobs` processes until
`--seeds` of them are done or `--seconds` are over, and goes on from there the next time, as long as
the sources of core and simulator are the same; then branch coverage of the core over the first
`--covered` of them. `--part azure` runs the conversation trace under four policies, hurried so that
it saturates, `--jobs` policies at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from benchmarks import harness
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.limits import Limits
from llmos.kernel.sim import faults as faulty
from llmos.kernel.sim.calls import Call, assign, hurry
from llmos.kernel.sim.report import Report, summarize
from llmos.kernel.sim.run import Simulation
from llmos.kernel.sim.setup import Setup
from llmos.kernel.sim.small import POLICIES, world
from llmos.kernel.sim.traces import read

KERNEL = harness.ROOT / "src" / "llmos" / "kernel"
PROGRESS = harness.ROOT / ".venv" / "sim-seeds.json"
CHUNK = 500
NUM_REPLICAS = 4
NUM_SLOTS = 16
SPEED = 5.0
TENANTS = (10.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
CLASSES = (
    (ServiceClass.INTERACTIVE, 1.0),
    (ServiceClass.DEFAULT, 2.0),
    (ServiceClass.BATCH, 1.0),
)


def digest() -> str:
    """Of the sources under test: what was found holds for these only."""
    found = hashlib.blake2b(digest_size=8)
    for path in sorted([*(KERNEL / "core").rglob("*.py"), *(KERNEL / "sim").rglob("*.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()


@dataclass
class Done:
    """What came of some seeds. `ends` of requests, `injected` faults and `policies`: counts."""

    num_steps: int = 0
    spent_s: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Done) -> None:
        self.num_steps += other.num_steps
        self.spent_s += other.spent_s
        self.ends += other.ends
        self.injected += other.injected
        self.policies += other.policies
        self.violations += other.violations


@dataclass
class Progress:
    """Seeds 0 to `next_seed` - 1 are done."""

    digest: str
    next_seed: int = 0
    done: Done = field(default_factory=Done)


def resume() -> Progress:
    try:
        found = msgspec.json.decode(PROGRESS.read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError):
        return Progress(digest())
    return found if found.digest == digest() else Progress(digest())


def run_chunk(seeds: range) -> Done:
    """A failure is kept with its seed, and the rest goes on."""
    began, done = time.process_time(), Done()
    for seed in seeds:
        drawn = world(seed)
        done.policies[drawn.setup.policy] += 1
        try:
            ran = drawn.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            done.violations.append(f"seed {seed}, {drawn.setup.policy}: {error!r}")
            continue
        done.num_steps += ran.num_steps
        done.ends.update(outcome.end for outcome in ran.outcomes)
        done.injected += ran.injected
    done.spent_s = time.process_time() - began
    return done


def run_seeds(num_seeds: int, seconds: float, jobs: int) -> Progress:
    """Goes on where the last run ended; what is done is written down chunk by chunk, in order."""
    progress = resume()
    until, first = time.monotonic() + seconds, progress.next_seed
    chunks = [range(at, min(at + CHUNK, num_seeds)) for at in range(first, num_seeds, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for chunk, done in zip(chunks, pool.imap(run_chunk, chunks), strict=True):
            progress.done.add(done)
            progress.next_seed = chunk.stop
            PROGRESS.write_bytes(msgspec.json.encode(progress))
            print(f"\r{progress.next_seed} seeds", end="", flush=True)
            if time.monotonic() > until:
                break
    print(f"\n{progress.next_seed - first} new seeds, {progress.next_seed} in all")
    return progress


COVERED = """
import sys
from llmos.kernel.sim.small import world
for seed in range(int(sys.argv[1])):
    world(seed).run()
"""


def covered(num_seeds: int) -> tuple[float, float, dict[str, list[str]]]:
    """Lines and branches of the core reached, in %, and by module which branches were not."""
    base = [sys.executable, "-m", "coverage"]
    script = PROGRESS.with_name("sim-covered.py")
    script.write_text(COVERED)
    data = {**os.environ, "COVERAGE_FILE": str(PROGRESS.with_name("sim-coverage"))}
    ran = subprocess.run(
        [
            *base,
            "run",
            "--branch",
            f"--include={KERNEL}/core/*",
            f"--omit={KERNEL}/core/jobs*",
            str(script),
            str(num_seeds),
        ],
        env=data,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    out = PROGRESS.with_name("sim-coverage.json")
    subprocess.run([*base, "json", "-q", "-o", str(out)], env=data, check=True)
    body = msgspec.json.decode(out.read_bytes())
    totals = body["totals"]
    missing = {
        Path(name).stem: [f"{a}-{'exit' if b < 0 else b}" for a, b in file["missing_branches"]]
        for name, file in body["files"].items()
        if file["missing_branches"]
    }
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    return lines, branches, missing


def seeds(result: harness.Result, arguments: argparse.Namespace) -> bool:
    began = time.monotonic()
    progress = run_seeds(arguments.seeds, arguments.seconds, arguments.jobs)
    took_s, done = time.monotonic() - began, progress.done
    for violation in done.violations[:20]:
        print(violation)

    def add(figure: str, value: float, unit: str) -> None:
        result.add(harness.Row(figure, value, unit))

    add("simulated seeds", progress.next_seed, "seeds")
    add("violations", len(done.violations), "seeds")
    add("steps of the core", done.num_steps, "steps")
    add("processor time a seed", harness.round4(done.spent_s * 1e3 / progress.next_seed), "ms")
    add("time of this run", harness.round4(took_s), "s")
    for policy, count in sorted(done.policies.items()):
        add(f"seeds under {policy}", count, "seeds")
    add("requests", done.ends.total(), "requests")
    add("requests finished", done.ends["finished"], "requests")
    for name in faulty.NAMES:
        add(f"injected: {name}", done.injected[name], "times")
    lines, branches, missing = covered(arguments.covered)
    add(f"lines of the core, {arguments.covered} seeds", harness.round4(lines), "%")
    add(f"branches of the core, {arguments.covered} seeds", harness.round4(branches), "%")
    for module, taken in missing.items():
        add(f"not taken in {module}: {', '.join(taken)}", len(taken), "branches")
    return not done.violations and progress.next_seed >= arguments.seeds


def azure(result: harness.Result, folder: Path, speed: float, jobs: int) -> None:
    """The whole hour, tenants and classes drawn by a seed, under each policy."""
    path = folder / "traces" / "AzureLLMInferenceTrace_conv.csv"
    with path.open(newline="") as lines:
        calls = list(hurry(assign(read(lines), random.Random(1), TENANTS, CLASSES), speed))
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        replays = pool.imap(partial(replay, calls=calls), POLICIES)
        for policy, (report, spent_s) in zip(POLICIES, replays, strict=True):
            note(result, policy, report)
            print(f"{policy}: {spent_s:.0f} s of processor time, hash {report.hash}", flush=True)


def replay(policy: str, calls: list[Call]) -> tuple[Report, float]:
    """And the processor time it took. Raises Violation."""
    began = time.process_time()
    setup = Setup(
        policy=policy,
        make_policy=POLICIES[policy],
        num_machines=NUM_REPLICAS,
        num_slots=NUM_SLOTS,
        limits=Limits(max_open_per_tenant=10**6),
        check_every=5000,
    )
    report = summarize(Simulation(setup, random.Random(2)).run(calls))
    return report, time.process_time() - began


def note(result: harness.Result, policy: str, report: Report) -> None:
    def add(figure: str, value: float, unit: str) -> None:
        result.add(harness.Row(f"{policy}: {figure}", harness.round4(value), unit))

    for kind in report.classes:
        for name, times in (("first token", kind.ttft_s), ("whole answer", kind.e2e_s)):
            if times is not None:
                add(f"{kind.service_class}, {name}, p50", times[0], "s")
                add(f"{kind.service_class}, {name}, p95", times[1], "s")
                add(f"{kind.service_class}, {name}, p99", times[2], "s")
        add(f"{kind.service_class}, refused", kind.num_refused, "requests")
    add("Jain, competing tenants", report.jain, "of 1")
    add("whole run", report.span_s, "s")
    add("utilisation", 100 * report.utilisation, "%")
    add("preemptions", report.num_preemptions, "times")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("seeds", "azure"), default=None)
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--covered", type=int, default=1500)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--speed", type=float, default=SPEED, help="of the trace")
    data = Path(os.environ.get("LLMOS_TEST_DATA") or harness.ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    holds = True
    if arguments.part in (None, "azure"):
        result = harness.Result("sim-azure", harness.command("sim"))
        azure(result, data, arguments.speed, arguments.jobs)
        print(result.write().relative_to(harness.ROOT))
    if arguments.part in (None, "seeds"):
        result = harness.Result("sim-seeds", harness.command("sim"))
        holds = seeds(result, arguments)
        print(result.write().relative_to(harness.ROOT))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
