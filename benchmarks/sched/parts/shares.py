"""b. What tenants get of a contended model: equal shares beside a greedy one, and by weight."""

from __future__ import annotations

from benchmarks.harness import paired, round4, single
from benchmarks.sched import system
from benchmarks.sched.arrivals import poisson
from benchmarks.sched.records import OK, Record, jain, service, worst_share_error
from benchmarks.sched.system import Context
from benchmarks.serving import Server

OUTPUT_TOKENS = 32
NUM_TENANTS = 8
GREED = 10.0
DEMAND = 1.5
"""A tenant's demand, in equal shares of what the machine can do; the greedy one's is GREED x."""
BURST = 6
"""Requests of each tenant at the start, so that everyone has a queue from then on."""
SETTLE_S = 6.0
WEIGHTED_SETTLE_S = 8.0
WEIGHTED_CLIENTS = 2 * system.NUM_SLOTS
"""Of each tenant, asking again when answered: more than there are rows, so it has a queue."""
OPENED_S = 0.3
"""By how much earlier every row is taken by someone else, by requests of ever greater length.

Else the first to ask gets every row before anyone competes, and making up for that takes longer
than a window; and what begins at once ends at once, so that service comes in waves.
"""
ECHO_TOKEN_MS = 10
ECHO_ROWS = 16
WEIGHTS = (1.0, 2.0, 4.0)


def measure(context: Context) -> None:
    """Jain's index under `fair` beside `fifo`; how far service is from the weights."""
    window_s = context.window_s(20.0, 60.0)
    ours = _equal(context, "fair", window_s)
    peer = _equal(context, "fifo", window_s)
    figure = f"Jain's index of {NUM_TENANTS} tenants, one sending {GREED:g} x, fair"
    context.result.add(paired(figure, "", [ours], "fifo", [peer]))
    _by_weight_on_echo(context)


def _equal(context: Context, policy: str, window_s: float) -> float:
    names = [f"tenant-{number}" for number in range(NUM_TENANTS)]
    with system.native(context.model, f"kernel.policy={policy}") as server:
        demand = {name: GREED if name == names[-1] else 1.0 for name in names}
        served = _served(context, server, dict.fromkeys(names, 1.0), demand, window_s)
        context.keep("service by tenant, tokens' worth", policy, list(served.values()))
        if policy == "fair":
            _by_weight(context, server)
    return jain(list(served.values()))


def _by_weight(context: Context, server: Server) -> None:
    """On the same server: nobody else asks meanwhile. In a minute the lightest has 30 answers."""
    until_s = WEIGHTED_SETTLE_S + context.window_s(52.0, 120.0)
    weights = {f"weight-{weight:g}": weight for weight in WEIGHTS}
    groups = [
        system.group(
            server, "opening", output_tokens=2 * number, prompt_tokens=16, due_s=[-OPENED_S]
        )
        for number in range(1, system.NUM_SLOTS + 1)
    ]
    for name, secret in system.add_keys(server, weights).items():
        groups.append(
            system.group(
                server, name, output_tokens=OUTPUT_TOKENS, closed=WEIGHTED_CLIENTS, key=secret
            )
        )
    records = system.run(server, groups, until_s)
    _check_contended(records, list(weights), until_s)
    _report(context, "native", service(records, list(weights), WEIGHTED_SETTLE_S, until_s))


def _by_weight_on_echo(context: Context) -> None:
    """The same with an engine that is as fast as it says: a hundred times more requests."""
    window_s = context.window_s(15.0, 60.0)
    weights = {f"weight-{weight:g}": weight for weight in WEIGHTS}
    script = {"tokens": OUTPUT_TOKENS, "delay_ms": ECHO_TOKEN_MS}
    capacity = ECHO_ROWS * 1000 / (OUTPUT_TOKENS * ECHO_TOKEN_MS)
    until_s = SETTLE_S + window_s
    with system.echo(f"kernel.num_slots={ECHO_ROWS}") as server:
        secrets = system.add_keys(server, weights)
        groups = []
        for seed, (name, weight) in enumerate(weights.items()):
            rate = capacity * DEMAND * weight / sum(WEIGHTS)
            groups.append(
                system.echo_group(
                    server,
                    name,
                    script,
                    due_s=[0.0] * 4 * ECHO_ROWS + poisson(rate, until_s, seed),
                    prompt_tokens=system.PROMPT_TOKENS,
                    key=secrets[name],
                )
            )
        records = system.run(server, groups, until_s)
    _check_contended(records, list(weights), until_s)
    _report(context, "echo", service(records, list(weights), SETTLE_S, until_s))


def _report(context: Context, driver: str, served: list[float]) -> None:
    parts = ":".join(f"{share / served[0] * WEIGHTS[0]:.2f}" for share in served)
    error = worst_share_error(served, WEIGHTS) * 100
    wanted = ":".join(f"{weight:g}" for weight in WEIGHTS)
    figure = f"weights {wanted} served as {parts}, {driver}: worst error"
    context.result.add(single(figure, "%", [error]))


def _served(
    context: Context,
    server: Server,
    weights: dict[str, float],
    demand: dict[str, float],
    window_s: float,
) -> dict[str, float]:
    """Cost of the service of each tenant, in a window in which all of them have a queue."""
    capacity = system.calibrate(context, server, OUTPUT_TOKENS)
    share = capacity * DEMAND / len(weights)
    secrets = system.add_keys(server, weights)
    until_s = SETTLE_S + window_s
    groups = []
    for seed, name in enumerate(weights):
        due_s = [0.0] * BURST + poisson(share * demand[name], until_s, seed)
        groups.append(
            system.group(server, name, output_tokens=OUTPUT_TOKENS, due_s=due_s, key=secrets[name])
        )
    records = system.run(server, groups, until_s)
    _check_contended(records, list(weights), until_s)
    served = service(records, list(weights), SETTLE_S, until_s)
    return {name: round4(got) for name, got in zip(weights, served, strict=True)}


def _check_contended(records: list[Record], names: list[str], until_s: float) -> None:
    """A tenant whose queue ran dry says nothing of its share. Raises RuntimeError.

    One that was refused did not wait.
    """
    for name in names:
        mine = [record for record in records if record.group == name]
        if not any(r.status in (0, OK) and not r.token_s and r.due_s < until_s for r in mine):
            raise RuntimeError(f"{name} was never short of service: raise DEMAND")
