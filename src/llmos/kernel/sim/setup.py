"""What is simulated: machines, workers, policy, faults, and how closely it is watched."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmos.abi.policy import MakePolicy, Tuning
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.policies import fair
from llmos.kernel.core.replica import HOST
from llmos.kernel.sim.faults import Faults
from llmos.kernel.sim.worker import NS, StepCost

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Setup:
    """`num_machines` kernels with one replica per model each, behind a front that sends each call
    to the one with the fewest open requests. `model_bytes`: by model name, 1 GiB if not named.
    With a `device` other than the host each has half as much there.
    `kv_bytes_per_token`, `snapshots`, `parks`, `parked_bytes`: as in `ModelFacts`, of every model.
    `check_every`: steps between looks into the books, 0 for none; promises are always watched.
    """

    policy: str = "fair"
    make_policy: MakePolicy = fair.make
    num_machines: int = 1
    num_slots: int = 16
    limits: Limits = field(default_factory=Limits)
    tuning: Tuning = field(default_factory=Tuning)
    cost: StepCost = field(default_factory=StepCost)
    faults: Faults = field(default_factory=Faults)
    load_ns: int = 2 * NS
    stop_ns: int = NS // 10
    park_ns: int = NS // 10
    unpark_ns: int = NS // 10
    spill_ns: int = NS // 10
    measure_ns: int = NS
    device: str = HOST
    kv_bytes_per_token: int = 0
    snapshots: bool = False
    parks: bool = False
    parked_bytes: int = 0
    probe_timeout_ns: int = 60 * NS
    fault_span_ns: int = 60 * NS
    model_bytes: dict[str, int] = field(default_factory=dict)
    check_every: int = 0
    is_hashed: bool = True
