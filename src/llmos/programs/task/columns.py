"""Which columns an input has, and what the task calls them. All rows are looked at before any is
asked: a column that is nowhere is the task's error, one that a row lacks is the row's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from llmos.abi.tasks import TaskSpec
from llmos.errors import InvalidRequest
from llmos.programs.task.source import TEXT, Row

LOOK_ROWS = 256
MAX_COLUMNS = 1000
MAX_NAMED = 12


@dataclass(frozen=True, slots=True)
class Columns:
    """`named`: what the task reads, and the columns it is in; `all`: every column, in order."""

    named: dict[str, str]
    all: list[str]

    def variables(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row as a prompt sees it: its columns, and what the task calls them. Raises
        InvalidRequest for a row that lacks one."""
        made = dict(values)
        for name, column in self.named.items():
            if column not in values or values[column] is None:
                raise InvalidRequest(f"the input has no {column!r}", param=f"columns.{name}")
            made[name] = values[column]
        return made


class Seen(NamedTuple):
    """Of a whole input."""

    columns: Columns
    num_rows: int


def look(
    rows: Iterable[Row], spec: TaskSpec, needs: Sequence[str], give_way: Callable[[], None]
) -> Seen:
    """Raises InvalidRequest for an input without rows, or without a column that is needed."""
    names: dict[str, None] = {}
    num_rows, first_error = 0, None
    for row in rows:
        num_rows += 1
        first_error = first_error or row.error
        if len(names) <= MAX_COLUMNS:
            names.update(dict.fromkeys(row.values))
        if num_rows % LOOK_ROWS == 0:
            give_way()
    if not num_rows:
        raise InvalidRequest("the input has no rows", param="input")
    if len(names) > MAX_COLUMNS:
        raise InvalidRequest(f"the input has more than {MAX_COLUMNS} columns", param="input")
    if not names and first_error is not None:
        raise InvalidRequest(f"no row can be read; the first: {first_error.message}", param="input")
    return Seen(Columns(_named(spec, needs, list(names)), list(names)), num_rows)


def _named(spec: TaskSpec, needs: Sequence[str], names: list[str]) -> dict[str, str]:
    for wanted, column in spec.columns.items():
        if column not in names:
            raise _missing(column, names, f"columns.{wanted}")
    for column in spec.keep or ():
        if column not in names:
            raise _missing(column, names, "output.columns")
    named = dict(spec.columns)
    for wanted in needs:
        if wanted in named:
            continue
        if wanted in names:
            named[wanted] = wanted
        elif len(names) == 1 and wanted == TEXT:
            named[wanted] = names[0]
        else:
            raise _missing(wanted, names, f"columns.{wanted}")
    return named


def _missing(column: str, names: list[str], param: str) -> InvalidRequest:
    near = get_close_matches(column, names, n=3, cutoff=0.5)
    there = ", ".join(map(repr, near or names[:MAX_NAMED]))
    hint = f"did you mean {there}?" if near else f"it has {there}"
    return InvalidRequest(f"the input has no column {column!r}; {hint}", param=param)
