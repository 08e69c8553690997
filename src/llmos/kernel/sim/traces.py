"""Reads traces from lines of text: the Azure CSV, our own CSV, and JSON lines.

The Azure form is `TIMESTAMP,ContextTokens,GeneratedTokens` with a date and seven decimals
(Patel et al., "Splitwise", ISCA 2024). Ours has the columns `at_s,prompt_tokens,output_tokens` and
any of `tenant,principal,class,model,nice,weight,deadline_ms,max_tokens`; JSON lines have the same
names as keys. Every error names its line.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from llmos.abi.principal import ServiceClass
from llmos.errors import InvalidRequest
from llmos.kernel.sim.calls import NS, Call

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
NEEDED = ("at_s", "prompt_tokens", "output_tokens")
OPTIONAL = (
    *("tenant", "principal", "class", "model"),
    *("nice", "weight", "deadline_ms", "max_tokens"),
)
MAX_TOKENS = 10_000_000
MAX_TIME_S = 10**9

Fields = dict[str, Any]


def read(lines: Iterable[str]) -> Iterator[Call]:
    """Calls in the order of their times, the first at 0. Raises InvalidRequest naming the line."""
    rest = iter(lines)
    first = next(rest, "").removeprefix("\ufeff")
    if not first.strip():
        raise _wrong(1, "the trace is empty")
    if first.lstrip().startswith("{"):
        rows, parse = _json_rows(itertools.chain([first], rest)), _own
    else:
        header = tuple(name.strip() for name in next(csv.reader([first])))
        parse = _azure if header == AZURE else _own
        if parse is _own:
            _check_header(header)
        rows = _csv_rows(header, rest)
    return _in_order(_calls(rows, parse))


def _calls(
    rows: Iterator[tuple[int, Fields]], parse: Callable[[int, Fields], Call]
) -> Iterator[tuple[int, Call]]:
    for line, fields in rows:
        yield line, parse(line, fields)


def _in_order(calls: Iterator[tuple[int, Call]]) -> Iterator[Call]:
    """Times from the first call on. A call that is earlier than the one before it is an error."""
    from dataclasses import replace

    start_ns = last_ns = None
    for line, call in calls:
        if start_ns is None or last_ns is None:
            start_ns = last_ns = call.at_ns
        if call.at_ns < last_ns:
            raise _wrong(line, "it is earlier than the line before it")
        last_ns = call.at_ns
        yield replace(call, at_ns=call.at_ns - start_ns)
    if start_ns is None:
        raise _wrong(2, "the trace has a header and nothing else")


def _csv_rows(header: tuple[str, ...], lines: Iterator[str]) -> Iterator[tuple[int, Fields]]:
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _wrong(reader.line_num + 1, str(error)) from error
        line = reader.line_num + 1
        if not cells:
            continue
        if len(cells) != len(header):
            raise _wrong(line, f"{len(cells)} columns, the header has {len(header)}")
        yield line, dict(zip(header, cells, strict=True))


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, Fields]]:
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(line, f"not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise _wrong(line, "not a JSON object")
        _check_names(line, tuple(fields))
        yield line, fields


def _check_header(header: tuple[str, ...]) -> None:
    _check_names(1, header)
    if len(set(header)) != len(header):
        raise _wrong(1, "a column is named twice")


def _check_names(line: int, names: tuple[str, ...]) -> None:
    missing = [name for name in NEEDED if name not in names]
    unknown = [name for name in names if name not in (*NEEDED, *OPTIONAL)]
    if missing:
        raise _wrong(line, f"{missing[0]!r} is missing")
    if unknown:
        known = ", ".join((*NEEDED, *OPTIONAL))
        raise _wrong(line, f"{unknown[0]!r} is not one of {known}")


def _azure(line: int, fields: Fields) -> Call:
    """No tenant, class or model in it. Zeros stand where nothing was generated: 1 here."""
    return Call(
        _timestamp_ns(line, fields["TIMESTAMP"]),
        _int(line, "ContextTokens", fields["ContextTokens"], 0, MAX_TOKENS) or 1,
        _int(line, "GeneratedTokens", fields["GeneratedTokens"], 0, MAX_TOKENS) or 1,
    )


def _own(line: int, fields: Fields) -> Call:
    at_ns = round(_float(line, "at_s", fields["at_s"], 0.0, MAX_TIME_S) * NS)
    deadline_ms = _optional(line, fields, "deadline_ms", _float, (0.0, MAX_TIME_S))
    tenant = _text(line, fields, "tenant", "tenant-1")
    return Call(
        at_ns,
        _int(line, "prompt_tokens", fields["prompt_tokens"], 1, MAX_TOKENS),
        _int(line, "output_tokens", fields["output_tokens"], 1, MAX_TOKENS),
        tenant,
        _text(line, fields, "principal", tenant),
        _service_class(line, _text(line, fields, "class", "default")),
        _text(line, fields, "model", "model"),
        _optional(line, fields, "nice", _int, (-20, 19)) or 0,
        _optional(line, fields, "weight", _float, (1e-3, 1e3)) or 1.0,
        _optional(line, fields, "max_tokens", _int, (0, MAX_TOKENS)) or 0,
        None if deadline_ms is None else round(deadline_ms * 1e6),
    )


def _optional(
    line: int, fields: Fields, name: str, parse: Callable[..., Any], bounds: tuple[Any, Any]
) -> Any:
    value = fields.get(name)
    return None if value is None or value == "" else parse(line, name, value, *bounds)


def _text(line: int, fields: Fields, name: str, default: str) -> str:
    value = fields.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or len(value) > 200:
        raise _wrong(line, f"{name} must be a text of at most 200 characters")
    return value


def _service_class(line: int, name: str) -> ServiceClass:
    try:
        return ServiceClass[name.upper()]
    except KeyError:
        known = ", ".join(kind.name.lower() for kind in ServiceClass)
        raise _wrong(line, f"class {name!r} is not one of {known}") from None


def _int(line: int, name: str, value: Any, low: int, high: int) -> int:
    number = _float(line, name, value, low, high)
    if number != int(number):
        raise _wrong(line, f"{name} must be a whole number, not {value!r}")
    return int(number)


def _float(line: int, name: str, value: Any, low: float, high: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise _wrong(line, f"{name} must be a number from {low:g} to {high:g}, not {value!r:.40}")
    return number


def _timestamp_ns(line: int, text: str) -> int:
    """`2023-11-16 18:15:46.6805900`: Python reads six decimals, so the fraction is read by hand."""
    whole, _, fraction = text.strip().partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        if fraction and not (fraction.isascii() and fraction.isdigit()):
            raise ValueError(fraction)
    except (ValueError, OverflowError):
        raise _wrong(line, f"TIMESTAMP {text!r:.40} is not a date and time") from None
    return seconds * NS + int(fraction[:9].ljust(9, "0"))


def _wrong(line: int, what: str) -> InvalidRequest:
    return InvalidRequest(f"trace, line {line}: {what}", param="trace", details={"line": line})
