"""Placement: what is reserved for a model, and in which type it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.driver import DriverEntry, DtypeChoice
from llmos.abi.footprint import Footprint, FootprintKey
from llmos.abi.registry import LoadCost, ModelVersion
from llmos.errors import (
    InvalidRequest,
)
from llmos.kernel.config import KernelConfig
from llmos.kernel.placement import Placement


def version(**changes: Any) -> ModelVersion:
    fields: dict[str, Any] = {
        "model_id": "mdl_1",
        "name": "m",
        "version": "1",
        "driver": "native",
        "format": "safetensors",
        "folder": "",
        "digest": "",
        "size_bytes": 1,
        "context_length": 4096,
        "vocab_size": 10,
        "prepare": "",
        "source": "",
        "created_ns": 0,
        "footprint_bytes": 1000,
        "num_parameters": 99,
        "kv_bytes_per_token": 1,
    }
    return ModelVersion(**(fields | changes))


class NoFootprints:
    """Nothing was ever measured, but for what a test says."""

    known: Sequence[Footprint] = ()

    def all(self) -> list[Footprint]:
        return list(self.known)

    def learn(self, footprint: Footprint) -> None:
        raise AssertionError(footprint)


def choose_dtype(asked: str, stored: str, device: str, num_parameters: int) -> DtypeChoice:
    """A processor that has no bfloat16, and small products only slowly."""
    if stored == "int8" and asked not in ("auto", "int8"):
        raise InvalidRequest("its files are int8", param="dtype")
    if asked == "auto":
        asked = "float32" if stored == "bfloat16" else stored
    return DtypeChoice(
        asked, f"because of {device}", ["slow"] if asked == "int4" and num_parameters == 99 else []
    )


def placement_of(
    config: KernelConfig,
    budget: int,
    driver_of: Callable[[str], DriverEntry],
    may_reach: Callable[[str], bool] = lambda host: True,
) -> Placement:
    return Placement(
        config,
        {"host": budget},
        driver_of,
        Path("/scratch"),
        NoFootprints(),
        choose_dtype=choose_dtype,
        may_reach=may_reach,
    )


def test_what_is_reserved_covers_weights_engine_and_every_slot() -> None:
    def driver_of(name: str) -> DriverEntry:
        return DriverEntry(name, "x:y", base_bytes=500)

    config = KernelConfig(num_slots=4, max_context_tokens=1000, num_threads=3)
    placement = placement_of(config, 100_000, driver_of)
    facts = placement.facts(version())
    assert facts.reserve_bytes == 1000 + 500 + 4 * 1000
    driver, spec = placement.spec(facts, "rep_1")
    assert (driver.name, spec.num_slots, spec.context_length, spec.num_threads) == (
        *("native", 4, 1000, 3),
    )


def test_what_was_measured_counts_before_the_estimate_takes_rows_away() -> None:
    def driver_of(name: str) -> DriverEntry:
        return DriverEntry(name, "x:y", base_bytes=500, engine="e")

    config = KernelConfig(num_slots=4, max_context_tokens=1000)
    learned = NoFootprints()
    key = FootprintKey("mdl_1", "", "cpu", 1000, 4, "native", "e")
    learned.known = [Footprint(key, bound_bytes=2000, peak_bytes=2000, load_s=1.0, measured_ns=1)]
    budgets = {"host": 2100}  # the estimate is 5500
    placement = Placement(
        config, budgets, driver_of, Path("/scratch"), learned, choose_dtype=choose_dtype
    )
    facts = placement.facts(version())
    assert (facts.num_slots, facts.reserve_bytes) == (4, 2040)
    assert "as measured" in facts.why
    budgets["host"] = 1000  # too small for that, too
    placement = Placement(
        config, budgets, driver_of, Path("/scratch"), learned, choose_dtype=choose_dtype
    )
    assert placement.facts(version()).num_slots == 1


def test_fewer_slots_rather_than_no_model() -> None:
    def driver_of(name: str) -> DriverEntry:
        return DriverEntry(name, "x:y")

    config = KernelConfig(num_slots=16, max_context_tokens=1000)
    tight = placement_of(config, 4500, driver_of)
    assert tight.facts(version()).num_slots == 3
    tighter = placement_of(config, 1500, driver_of)
    assert tighter.facts(version()).num_slots == 1  # and the core refuses it with the arithmetic


def _placement(**config: Any) -> Placement:
    return placement_of(
        KernelConfig(num_slots=1, max_context_tokens=100, **config),
        1 << 30,
        lambda name: DriverEntry(name, "x:y"),
    )


LOADS = {"float32": LoadCost(2000, 2), "bfloat16": LoadCost(1000, 1), "int4": LoadCost(400, 1)}


def test_a_type_that_was_asked_for_is_what_is_planned_and_loaded() -> None:
    placement, model = _placement(), version(dtype="bfloat16", loads=LOADS)
    facts = placement.facts(model)
    assert (facts.dtype, facts.reserve_bytes) == ("float32", 2000 + 100 * 2)
    assert placement.spec(facts, "rep_1")[1].dtype == "auto"
    wanted = placement.facts_as(model, "int4")
    assert (wanted.dtype, wanted.reserve_bytes) == ("int4", 400 + 100)
    assert placement.facts(model) == facts  # nobody has asked yet
    placement.ask(model, "int4")
    assert placement.facts(model) == wanted
    assert placement.spec(wanted, "rep_1")[1].dtype == "int4"
    assert placement.choice_of(wanted).warnings == ["slow"]
    assert placement.choice_of(facts).dtype == "float32"  # of a replica that still goes
    placement.ask(model, None)
    assert placement.facts(model) == facts
    with pytest.raises(InvalidRequest, match="can be loaded as float32, bfloat16, int4"):
        placement.facts_as(model, "int8")


def test_a_configured_type_is_a_wish() -> None:
    placement = _placement(dtype="int4")
    able = version(dtype="bfloat16", loads=LOADS)
    assert placement.dtype_of(able).reason == "by kernel.dtype: because of cpu"
    assert placement.spec(placement.facts(able), "rep_1")[1].dtype == "int4"
    other = version(model_id="mdl_2", dtype="int8", loads={"int8": LoadCost(500, 1)})
    found = placement.dtype_of(other)
    assert found.dtype == "int8" and "not kernel.dtype" in found.reason
    assert placement.spec(placement.facts(other), "rep_1")[1].dtype == "auto"
    bare = version(model_id="mdl_3")  # a driver without files
    assert placement.dtype_of(bare) == DtypeChoice(
        "", "; not kernel.dtype: m:1 has no weights in files"
    )
    assert placement.spec(placement.facts(bare), "rep_1")[1].dtype == "auto"


def test_of_a_version_of_an_earlier_release_the_bound_is_above() -> None:
    placement = _placement()
    model = version(dtype="bfloat16", size_bytes=600)
    assert placement.facts_as(model, "int8").reserve_bytes == 1000 + 100
    assert placement.facts_as(model, "float32").reserve_bytes == 1000 + 2 * 600 + 2 * 100


def test_what_was_measured_holds_for_its_type_alone() -> None:
    learned = NoFootprints()
    key = FootprintKey("mdl_1", "int4", "cpu", 100, 1, "native", "")
    learned.known = [Footprint(key, bound_bytes=100, peak_bytes=100, load_s=1.0, measured_ns=1)]
    config = KernelConfig(num_slots=1, max_context_tokens=100)
    placement = Placement(
        config,
        {"host": 1 << 30},
        lambda name: DriverEntry(name, "x:y"),
        Path("/scratch"),
        learned,
        choose_dtype=choose_dtype,
        cache=Path("/cache"),
        min_free_bytes=7,
    )
    model = version(dtype="bfloat16", loads=LOADS)
    assert placement.facts_as(model, "int4").reserve_bytes == 102
    _, spec = placement.spec(placement.facts(model), "rep_1")
    assert (spec.cache, spec.min_free_bytes) == ("/cache/mdl_1", 7)
    assert placement.facts(model).reserve_bytes == 2200
