"""A model with weights of one type after another: what is believed of it, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.abi.driver import DriverEntry
from llmos.abi.registry import LoadCost
from llmos.errors import Conflict, InvalidRequest, ShuttingDown
from llmos.kernel import sys_models
from llmos.kernel.config import KernelConfig
from llmos.kernel.core import events as ev
from llmos.kernel.core.replica import ReplicaState
from llmos.kernel.placement import Placement
from tests.unit.kernel.core_world import GIB, World, model
from tests.unit.kernel.test_placement import NoFootprints, choose_dtype, version

WIDE = replace(model(size=GIB), dtype="float32")
NARROW = replace(model(size=GIB // 2), dtype="int8")


def test_what_was_measured_of_one_type_is_forgotten_with_it() -> None:
    world = World()
    world.step(ev.ModelWanted(WIDE, pin=False))
    (replica,) = world.state.replicas.values()
    world.up(replica.replica_id, used=GIB // 4)
    assert world.state.needs(WIDE)["host"] < GIB // 3
    world.step(ev.ModelUnwanted(WIDE.model_id))
    world.gone(replica.replica_id, None)
    world.step(ev.ModelWanted(NARROW, pin=False))
    assert world.state.ledger.reserved_bytes == GIB // 2


def test_what_goes_teaches_nothing_about_what_comes() -> None:
    """The old replica drains; what is measured of it then is not the new one's."""
    world = World(memory_budget_bytes=4 * GIB)
    world.arrive("r1", WIDE)
    (old,) = world.state.replicas.values()
    world.up(old.replica_id, used=GIB)
    world.step(ev.ModelUnwanted(WIDE.model_id))
    assert old.state is ReplicaState.DRAINING
    world.step(ev.ModelWanted(NARROW, pin=False))
    world.step(ev.ReplicaMeasured(old.replica_id, 2 * GIB))
    assert world.state.needs(NARROW) == {"host": GIB // 2}
    new = next(r for r in world.state.replicas.values() if r is not old)
    assert new.model.dtype == "int8"
    world.up(new.replica_id, used=GIB // 3)
    assert world.state.needs(NARROW)["host"] < GIB // 2


LOADS = {"float32": LoadCost(2000, 2), "bfloat16": LoadCost(1000, 1), "int8": LoadCost(500, 1)}
VERSION = version(dtype="bfloat16", loads=LOADS)


def kernel_of(world: World, *, draining: bool = False) -> Any:
    placement = Placement(
        KernelConfig(num_slots=1, max_context_tokens=16),
        {"host": 1 << 30},
        lambda name: DriverEntry(name, "x:y"),
        Path("/scratch"),
        NoFootprints(),
        choose_dtype=choose_dtype,
    )
    return SimpleNamespace(
        placement=placement,
        state=world.state,
        draining=draining,
        loop=SimpleNamespace(post=world.step),
    )


def load_as(kernel: Any, dtype: str) -> None:
    asyncio.run(sys_models._load_as(kernel, VERSION, dtype, None))


def test_a_load_that_fails_leaves_the_model_as_it_was() -> None:
    kernel = kernel_of(World(), draining=True)
    with pytest.raises(ShuttingDown):
        load_as(kernel, "int8")
    assert kernel.placement.facts(VERSION).dtype == "float32"
    with pytest.raises(InvalidRequest):
        load_as(kernel, "float16")


def test_another_type_than_that_of_what_is_there() -> None:
    world = World()
    kernel = kernel_of(world)
    world.arrive("r1", kernel.placement.facts(VERSION))
    with pytest.raises(Conflict, match="m:1 is loaded as float32: `llmos unload m:1` first"):
        load_as(kernel, "int8")
    assert kernel.placement.facts(VERSION).dtype == "float32"


def test_others_may_ask_for_another_type_meanwhile() -> None:
    world = World()
    kernel = kernel_of(world)

    def when_resident(model_id: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def post(_: object) -> None:  # somebody else's wish came first
        world.step(ev.ModelWanted(kernel.placement.facts_as(VERSION, "float32"), pin=False))

    kernel.when_resident, kernel.loop.post = when_resident, post
    with pytest.raises(Conflict, match="is loaded as float32"):
        load_as(kernel, "int8")
