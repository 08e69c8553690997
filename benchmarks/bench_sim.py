"""The simulator at work: many small seeds with every promise watched, and the whole Azure trace.

`--part seeds` runs small random worlds (see `llmos.kernel.sim.small`) until `--seeds` of them are
done or `--seconds` are over, and goes on from there the next time, as long as the sources of core
and simulator are the same; then branch coverage of the core over the first `--covered` of them.
`--part azure` runs the conversation trace under four policies, hurried so that it saturates.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks import harness
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.limits import Limits
from llmos.kernel.sim.calls import Call, assign, hurry
from llmos.kernel.sim.report import Report, summarize
from llmos.kernel.sim.run import Simulation
from llmos.kernel.sim.setup import Setup
from llmos.kernel.sim.small import POLICIES, world
from llmos.kernel.sim.traces import read
from llmos.kernel.sim.witness import Violation

KERNEL = harness.ROOT / "src" / "llmos" / "kernel"
PROGRESS = harness.ROOT / ".venv" / "sim-seeds.json"
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
class Progress:
    """Seeds 0 to `next_seed` - 1 are done."""

    digest: str
    next_seed: int = 0
    num_steps: int = 0
    spent_s: float = 0.0
    violations: list[str] = field(default_factory=list)


def resume() -> Progress:
    try:
        found = msgspec.json.decode(PROGRESS.read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError):
        return Progress(digest())
    return found if found.digest == digest() else Progress(digest())


def run_seeds(num_seeds: int, seconds: float) -> Progress:
    """Goes on where the last run ended. A failure is kept with its seed, and the rest goes on."""
    progress = resume()
    until, first = time.monotonic() + seconds, progress.next_seed
    while progress.next_seed < num_seeds and time.monotonic() < until:
        began = time.process_time()
        for seed in range(progress.next_seed, min(progress.next_seed + 500, num_seeds)):
            try:
                progress.num_steps += world(seed).run().num_steps
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                progress.violations.append(f"seed {seed}: {error!r}")
            progress.next_seed = seed + 1
        progress.spent_s += time.process_time() - began
        PROGRESS.write_bytes(msgspec.json.encode(progress))
        print(f"\r{progress.next_seed} seeds", end="", flush=True)
    print(f"\n{progress.next_seed - first} new seeds, {progress.next_seed} in all")
    return progress


COVERED = """
import sys
from llmos.kernel.sim.small import world
for seed in range(int(sys.argv[1])):
    world(seed).run()
"""


def covered(num_seeds: int) -> tuple[float, float, str] | None:
    """Lines and branches of the core reached, in %, and which were not. None without `coverage`."""
    base = [sys.executable, "-m", "coverage"]
    data = {**os.environ, "COVERAGE_FILE": str(PROGRESS.with_name("sim-coverage"))}
    ran = subprocess.run(
        [*base, "run", "--branch", f"--include={KERNEL}/core/*", "-", str(num_seeds)],
        input=COVERED,
        env=data,
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named coverage" in ran.stderr:
        return None
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    out = PROGRESS.with_name("sim-coverage.json")
    subprocess.run([*base, "json", "-q", "-o", str(out)], env=data, check=True)
    body = msgspec.json.decode(out.read_bytes())
    totals = body["totals"]
    missing = [
        f"{Path(name).stem}: {', '.join(f'{a}->{b}' for a, b in file['missing_branches'])}"
        for name, file in body["files"].items()
        if file["missing_branches"]
    ]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    return lines, branches, "; ".join(missing)


def seeds(result: harness.Result, arguments: argparse.Namespace) -> bool:
    progress = run_seeds(arguments.seeds, arguments.seconds)
    for violation in progress.violations[:20]:
        print(violation)
    result.add(harness.Row("simulated seeds", progress.next_seed, "seeds"))
    result.add(harness.Row("violations", len(progress.violations), "seeds"))
    result.add(harness.Row("steps of the core", progress.num_steps, "steps"))
    each_ms = progress.spent_s * 1e3 / max(1, progress.next_seed)
    result.add(harness.Row("processor time a seed", harness.round4(each_ms), "ms"))
    found = covered(arguments.covered)
    if found is None:
        print("no coverage: pip install coverage")
    else:
        lines, branches, missing = found
        result.add(harness.Row(f"lines of the core, {arguments.covered} seeds", lines, "%"))
        result.add(harness.Row(f"branches of the core, {arguments.covered} seeds", branches, "%"))
        print(f"branches not taken: {missing}")
    return not progress.violations


def azure(result: harness.Result, folder: Path, speed: float) -> None:
    """The whole hour, tenants and classes drawn by a seed, under each policy."""
    path = folder / "traces" / "AzureLLMInferenceTrace_conv.csv"
    with path.open(newline="") as lines:
        calls = list(hurry(assign(read(lines), random.Random(1), TENANTS, CLASSES), speed))
    for policy in POLICIES:
        began = time.process_time()
        report = replay(policy, calls)
        spent_s = time.process_time() - began
        note(result, policy, report)
        print(f"{policy}: {spent_s:.0f} s of processor time, hash {report.hash}")


def replay(policy: str, calls: list[Call]) -> Report:
    setup = Setup(
        policy=policy,
        make_policy=POLICIES[policy],
        num_machines=NUM_REPLICAS,
        num_slots=NUM_SLOTS,
        limits=Limits(max_open_per_tenant=10**6),
        check_every=5000,
    )
    try:
        return summarize(Simulation(setup, random.Random(2)).run(calls))
    except Violation as error:
        raise SystemExit(f"{policy}: {error}") from error


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
    add("Jain, competing tenants", report.jain, "")
    add("utilisation", 100 * report.utilisation, "%")
    add("preemptions", report.num_preemptions, "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("seeds", "azure"), default=None)
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--covered", type=int, default=1500)
    parser.add_argument("--speed", type=float, default=SPEED, help="of the trace")
    data = Path(os.environ.get("LLMOS_TEST_DATA") or harness.ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    holds = True
    if arguments.part in (None, "azure"):
        result = harness.Result("sim-azure", harness.command("sim"))
        azure(result, data, arguments.speed)
        print(result.write().relative_to(harness.ROOT))
    if arguments.part in (None, "seeds"):
        result = harness.Result("sim-seeds", harness.command("sim"))
        holds = seeds(result, arguments)
        print(result.write().relative_to(harness.ROOT))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
