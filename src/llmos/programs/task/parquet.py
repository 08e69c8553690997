"""Outcomes as Parquet: every column has the one type that all its values have, else it is text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from llmos.abi.tasks import TaskSpec
from llmos.programs.task.records import Layout, Records, Tally
from llmos.programs.task.source import load_parquet
from llmos.programs.task.tables import as_text

ROWS_AT_ONCE = 4096


def write_parquet(path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally) -> None:
    """Raises PluginError where the extra is missing."""
    parquet = load_parquet()
    import pyarrow as pa

    found: dict[str, set[str]] = {name: set() for name in layout.names}
    for record in every():
        for name, value in layout.values(record).items():
            found[name].add(_type_of(value))
    kinds = {name: _common(types) for name, types in found.items()}
    types = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "vector": pa.list_(pa.float32()),
        "text": pa.string(),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    rows = (layout.values(record) for record in every())
    with parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            plain = [{n: _as(v, kinds[n]) for n, v in row.items()} for row in chunk]
            writer.write_table(pa.Table.from_pylist(plain, schema=schema))


def _type_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "text"
    if isinstance(value, float):
        return "float"
    if isinstance(value, list) and value and all(isinstance(one, float) for one in value):
        return "vector"
    return "text"


def _common(types: set[str]) -> str:
    types.discard("")
    if types == {"int", "float"}:
        return "float"
    return types.pop() if len(types) == 1 else "text"


def _as(value: Any, kind: str) -> Any:
    if kind == "text" and value is not None:
        return as_text(value)
    return float(value) if kind == "float" and value is not None else value
