"""A process that has imported everything, and forks one life after another of what it is told.

`python -m tests.storm.zygote KIND`; KIND is a module of this package with `live(order, say)`. One
order (a line of JSON) on stdin, one life; on stdout what it says, and then how it ended. A start
costs a fork instead of a second of imports, and is a process of its own all the same.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from tests.storm.orphans import die_with_parent

MUTANT = "STORM_MUTANT"
"""Path of a mutant's {module, source}: it replaces that module before anything imports it."""


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _replace(path: str) -> None:
    from tests.mutation.hunt import Replaced

    with open(path) as file:  # noqa: PTH123  before anything is imported
        given = json.load(file)
    sys.meta_path.insert(0, Replaced(given["module"], given["source"]))


def _life(
    live: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], int], order: Any
) -> None:
    os.setsid()
    die_with_parent()
    code = 70
    try:
        if "max_files" in order:
            resource.setrlimit(resource.RLIMIT_NOFILE, (order["max_files"],) * 2)
        code = live(order, _say)
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    die_with_parent()
    if path := os.environ.pop(MUTANT, ""):
        _replace(path)
    try:
        module = importlib.import_module(f"tests.storm.{sys.argv[1]}")
    except Exception as error:  # a mutant may not even be imported: that is for the caller to judge
        _say({"failed": f"{type(error).__name__}: {error}"})
        return 1
    gc.collect()
    gc.freeze()
    _say({"loaded": os.getpid()})
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        if (pid := os.fork()) == 0:
            with contextlib.suppress(OSError):
                os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
            _say({"pid": os.getpid()})
            _life(module.live, order)
        _, status = os.waitpid(pid, 0)
        _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
