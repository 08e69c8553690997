"""A model that another one guesses ahead for: what it takes, who may ask, what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.abi import syscall as sc
from llmos.abi import worker as msg
from llmos.abi.driver import DraftSpec, DriverEntry, Health, LoadReport, MemoryReport
from llmos.abi.footprint import Footprint
from llmos.abi.principal import Action, Principal, Resource
from llmos.abi.registry import LoadCost, ModelVersion
from llmos.errors import (
    Conflict,
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    PermissionDenied,
    ShuttingDown,
)
from llmos.kernel import sys_models
from llmos.kernel.config import KernelConfig
from llmos.kernel.core import events as ev
from llmos.kernel.effects import Effects
from llmos.kernel.placement import Placement
from llmos.telemetry.metrics import Metrics
from tests.unit.kernel.core_world import World
from tests.unit.kernel.test_placement import NoFootprints, choose_dtype, version

LOADS = {"float32": LoadCost(2000, 2), "int8": LoadCost(500, 1)}
TARGET = version(dtype="float32", loads=LOADS, vocab_size=0)
DRAFT = version(
    model_id="mdl_d",
    name="d",
    dtype="int8",
    loads={"int8": LoadCost(300, 3)},
    context_length=10,
    folder="/models/d",
    digest="sha256:d",
)


def placement_of(*, num_slots: int = 6, drafts: bool = True, log: Any = None) -> Placement:
    return Placement(
        KernelConfig(num_slots=num_slots, max_context_tokens=16),
        {"host": 1 << 30},
        lambda name: DriverEntry(name, "x:y", drafts=drafts and name == "native"),
        Path("/scratch"),
        log or NoFootprints(),
        choose_dtype=choose_dtype,
    )


def test_the_estimate_counts_the_draft_and_its_keys_and_values() -> None:
    placement = placement_of()
    plain = placement.facts(TARGET)
    drafted = placement.facts_as(TARGET, None, DRAFT)
    # of four requests, as far as its own context goes
    assert drafted.reserve_bytes - plain.reserve_bytes == 300 + 4 * 10 * 3
    assert (drafted.draft, plain.draft) == ("mdl_d", "")
    assert "draft model d:1" in drafted.why
    assert placement_of(num_slots=1).facts_as(TARGET, None, DRAFT).reserve_bytes == (
        2000 + 16 * 2 + 300 + 10 * 3
    )


def test_it_is_told_to_the_worker_and_remembered() -> None:
    placement = placement_of()
    plain = placement.facts(TARGET)
    placement.ask_draft(TARGET, DRAFT)
    facts = placement.facts(TARGET)
    assert placement.spec(facts, "rep_1")[1].draft == DraftSpec("d:1", "/models/d", "sha256:d")
    assert placement.spec(plain, "rep_0")[1].draft is None  # one that goes
    assert (placement.draft_of(facts), placement.draft_of(plain)) == (DRAFT, None)
    assert placement.facts_as(TARGET, "int8").draft == "mdl_d"
    placement.ask_draft(TARGET, None)
    assert placement.facts(TARGET) == plain


class _Forgetful(NoFootprints):
    def learn(self, footprint: Footprint) -> None:
        """What the placement keeps itself is enough."""


def test_what_was_measured_holds_for_this_draft_alone() -> None:
    placement = placement_of(log=_Forgetful())
    memory = MemoryReport(100, bound_bytes=100, peak_bytes=100)
    report = LoadReport("float32", "cpu", True, 16, 6, memory)
    plain = placement.facts(TARGET)
    placement.learn(placement.facts_as(TARGET, None, DRAFT), report, 1.0)
    placement.ask(TARGET, None)
    assert placement.facts(TARGET) == plain
    assert placement.facts_as(TARGET, None, DRAFT).reserve_bytes == 102


@pytest.mark.parametrize(
    ("draft", "drafts", "why"),
    [
        (TARGET, True, "cannot guess ahead for itself"),
        (DRAFT, False, "takes no draft model"),
        (version(model_id="mdl_e", driver="echo"), True, "is not read by the driver of"),
    ],
)
def test_what_cannot_be(draft: ModelVersion, drafts: bool, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        placement_of(drafts=drafts).facts_as(TARGET, None, draft)
    assert caught.value.param == "draft"


class _Registry:
    def resolve(self, ref: str) -> ModelVersion:
        for known in (TARGET, DRAFT):
            if ref == known.name:
                return known
        raise ModelNotFound(ref)


class _Authorizer:
    """Denies what a test names."""

    def __init__(self, denied: str = "") -> None:
        self.denied = denied
        self.asked: list[tuple[Action, Resource]] = []

    def authorize(self, principal: Principal, action: Action, resource: Resource) -> None:
        self.asked.append((action, resource))
        if resource.id == self.denied:
            raise PermissionDenied("no")


def kernel_of(world: World, *, draining: bool = False, denied: str = "") -> Any:
    def when_resident(model_id: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    return SimpleNamespace(
        placement=placement_of(),
        registry=_Registry(),
        authorizer=_Authorizer(denied),
        state=world.state,
        draining=draining,
        loop=SimpleNamespace(post=world.step),
        when_resident=when_resident,
        effects=SimpleNamespace(loads={}),
    )


def load(kernel: Any, draft: str | None, dtype: str | None = None) -> str:
    call: Any = SimpleNamespace(principal=None)
    body = sc.LoadModel(TARGET.name, dtype=dtype, draft=draft)
    return asyncio.run(sys_models.load_model(kernel, call, body)).what


def test_loaded_with_a_draft_until_it_is_unloaded() -> None:
    world = World()
    kernel = kernel_of(world)
    assert load(kernel, "d") == "m:1 is loaded as float32, d:1 guesses ahead for it"
    (replica,) = world.state.replicas.values()
    assert replica.model.draft == "mdl_d"
    assert load(kernel, None).endswith("d:1 guesses ahead for it")  # as it is
    assert kernel.authorizer.asked == [(Action.WRITE_MODELS, Resource("model", "d"))]
    shown = asyncio.run(sys_models.show_model(kernel, None, sc.ShowModel("m"))).model  # type: ignore[arg-type]
    assert shown.loaded_as.endswith("; d:1 guesses ahead for it")
    with pytest.raises(Conflict, match="d:1 guesses ahead for m:1: `llmos unload m:1` first"):
        asyncio.run(sys_models.remove_model(kernel, None, sc.RemoveModel("d")))  # type: ignore[arg-type]
    asyncio.run(sys_models.unload_model(kernel, None, sc.UnloadModel("m")))  # type: ignore[arg-type]
    assert kernel.placement.facts(TARGET).draft == ""


def test_one_that_is_there_without_has_to_go_first() -> None:
    world = World()
    kernel = kernel_of(world)
    load(kernel, None)
    with pytest.raises(Conflict, match="is loaded with no model as its draft") as caught:
        load(kernel, "d")
    assert caught.value.param == "draft"
    assert kernel.placement.draft_for(TARGET) is None


def test_who_may_not_load_the_draft() -> None:
    world = World()
    kernel = kernel_of(world, denied="d")
    with pytest.raises(PermissionDenied):
        load(kernel, "d")
    assert not world.state.replicas


def test_a_load_that_fails_leaves_no_draft_behind() -> None:
    kernel = kernel_of(World(), draining=True)
    with pytest.raises(ShuttingDown):
        load(kernel, "d", "int8")
    assert kernel.placement.facts(TARGET).form == ("float32", "")
    with pytest.raises(ModelNotFound):
        load(kernel, "nobody")


def test_what_was_found_of_it_with_a_draft_is_forgotten_without() -> None:
    world, placement = World(), placement_of()
    drafted, plain = placement.facts_as(TARGET, None, DRAFT), placement.facts(TARGET)
    world.step(ev.ModelWanted(drafted, pin=False))
    (replica,) = world.state.replicas.values()
    world.up(replica.replica_id, used=100)
    assert world.state.needs(drafted)["host"] < drafted.reserve_bytes
    world.step(ev.ModelUnwanted(TARGET.model_id))
    world.gone(replica.replica_id, None)
    world.step(ev.ModelWanted(plain, pin=False))
    assert world.state.needs(plain) == plain.needs


def test_a_draft_that_is_refused_does_not_keep_the_model_from_serving() -> None:
    world, placement = World(), placement_of()
    drafted, plain = placement.facts_as(TARGET, None, DRAFT), placement.facts(TARGET)
    world.step(ev.ModelWanted(drafted, pin=False))
    (replica,) = world.state.replicas.values()
    world.step(ev.ReplicaRefused(replica.replica_id, LoadFailed("another vocabulary").to_info()))
    world.gone(replica.replica_id, None)
    assert world.state.faults[TARGET.model_id].cooling
    world.arrive("r1", plain)
    (replica,) = world.state.replicas.values()
    assert replica.model == plain


def test_guesses_are_counted_once_each() -> None:
    metrics = Metrics()
    effects: Any = Effects.__new__(Effects)
    effects._guesses, effects._metrics = {}, metrics
    model = placement_of().facts(TARGET)
    effects._state = SimpleNamespace(
        replicas={"rep_1": SimpleNamespace(model=model)}, reserved_of=lambda replica: 1 << 40
    )

    def report(guessed: int, accepted: int) -> None:
        health = Health(True, num_guessed=guessed, num_accepted=accepted)
        effects.on_report("rep_1", msg.Report(1, health, MemoryReport(1)))

    report(10, 4)
    report(10, 4)
    report(25, 9)
    effects.on_report("rep_2", msg.Report(1, Health(True, num_guessed=99), MemoryReport(1)))
    page = metrics.render()[0].decode()
    assert 'vllm:spec_decode_num_draft_tokens_total{model_name="m:1"} 25.0' in page
    assert 'vllm:spec_decode_num_accepted_tokens_total{model_name="m:1"} 9.0' in page
