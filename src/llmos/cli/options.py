"""Options that several commands share, and how a command's help shows its examples."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Ref = Annotated[str, typer.Argument(metavar="MODEL", help="A model: name[:version or alias].")]

ProcessID = Annotated[
    str, typer.Argument(metavar="ID", help="As `llmos ps` shows it, or its beginning or end.")
]


class ClassName(enum.StrEnum):
    """As in abi.principal; named here too so that `--help` need not load the abi."""

    BATCH = "batch"
    DEFAULT = "default"
    INTERACTIVE = "interactive"


class Dtype(enum.StrEnum):
    """Types of weights in memory, as `POST /os/v1/models/REF/load` takes them."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT4 = "int4"


class QuantizedType(enum.StrEnum):
    """What weights may be quantized to."""

    INT8 = "int8"
    INT4 = "int4"


class LogLevel(enum.StrEnum):
    """Least to most severe."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
