"""Work in a process of its own: a plan in, records out, both in files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.sched.records import Record

P = TypeVar("P", bound=msgspec.Struct)


def run_child(module: str, plan: msgspec.Struct, timeout_s: float) -> list[Record]:
    """`python -m module PLAN RECORDS`. Raises RuntimeError with its last words."""
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        plan_path, records_path = Path(folder) / "plan", Path(folder) / "records"
        plan_path.write_bytes(msgspec.msgpack.encode(plan))
        command = [sys.executable, "-m", module, str(plan_path), str(records_path)]
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr.decode()}")
        return msgspec.msgpack.decode(records_path.read_bytes(), type=list[Record])


def serve_parent(kind: type[P], carry_out: Callable[[P], list[Record]]) -> int:
    """The child's side: what `main` does with its two arguments."""
    plan_path, records_path = map(Path, sys.argv[1:])
    plan = msgspec.msgpack.decode(plan_path.read_bytes(), type=kind)
    records_path.write_bytes(msgspec.msgpack.encode(carry_out(plan)))
    return 0
