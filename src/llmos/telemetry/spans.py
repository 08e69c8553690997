"""Spans and their contexts, as W3C and OpenTelemetry mean them. Data only: no clock, no I/O."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]

_SAMPLED = 1


class Kind(enum.IntEnum):
    """OTLP's numbers."""

    INTERNAL = 1
    SERVER = 2


class Context(NamedTuple):
    """Of one span: ids in hex, 32 and 16 digits. `parent_id` is empty at the root of a trace."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    is_sampled: bool = True

    @property
    def header(self) -> str:
        """The `traceparent` that makes others this span's children."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def parent_of(header: str) -> tuple[str, str, bool]:
    """Trace and span that a well-formed `traceparent` names, and whether they are sampled (W3C
    Trace Context, level 1)."""
    return header[3:35], header[36:52], bool(int(header[53:55], 16) & _SAMPLED)


def new_span_id() -> str:
    """Random."""
    return random.randbytes(8).hex()


def child_of(context: Context) -> Context:
    """For a span under another one of ours."""
    return Context(context.trace_id, new_span_id(), context.span_id)


class Moment(NamedTuple):
    """Something that happened within a span."""

    at_ns: int
    name: str
    attributes: Attributes


class Span(msgspec.Struct, frozen=True):
    """Times are UTC in ns. `error` says why it failed; empty: it did not."""

    context: Context
    name: str
    start_ns: int
    end_ns: int
    kind: Kind = Kind.INTERNAL
    attributes: Attributes = {}
    moments: Sequence[Moment] = ()
    error: str = ""
