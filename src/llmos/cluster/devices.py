"""NVIDIA's accelerators, as their own tool tells of them: the server imports no engine.

Other makers' are not found. Names are what a worker's engine calls them if it counts in the order
of the bus (`CUDA_DEVICE_ORDER=PCI_BUS_ID`), which is any order where all are of one kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import time
from collections.abc import Mapping

from llmos.abi.node import DeviceInfo

log = logging.getLogger(__name__)

TOOL = "nvidia-smi"
QUERY = ("--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits")
TIMEOUT_S = 5.0
KILL_S = 1.0
FRESH_S = 1.0
RETRY_S = 60.0
"""After no answer: a broken device may keep the tool for ever, and one of it is enough."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_MIB = 1 << 20
_MAX_DIGITS = 12


class Devices:
    """Those that workers of this environment see. One question at a time, at most one a second."""

    def __init__(self, env: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> None:
        self._env = dict(env)
        self._timeout_s = timeout_s
        self._known: list[DeviceInfo] = []
        self._fresh_until_s = -math.inf
        self._asking = asyncio.Lock()

    async def current(self) -> list[DeviceInfo]:
        """See `abi.NodeAgent`. Those that were there before and of which nothing is heard now have
        no `available_bytes`."""
        async with self._asking:
            if time.monotonic() >= self._fresh_until_s:
                fresh_s = FRESH_S
                try:
                    self._known = await self._ask()
                except OSError as error:  # a timeout is one too
                    log.warning("%s does not answer: %s", TOOL, str(error) or "not in time")
                    self._known = [DeviceInfo(d.name, d.total_bytes) for d in self._known]
                    fresh_s = RETRY_S
                self._fresh_until_s = time.monotonic() + fresh_s
            return self._known

    async def _ask(self) -> list[DeviceInfo]:
        """Raises OSError."""
        tool = shutil.which(TOOL, path=self._env.get("PATH", ""))
        if tool is None:
            return []
        text = await _output(tool, self._env, self._timeout_s)
        return parse(text, self._env.get(VISIBLE))


async def _output(tool: str, env: Mapping[str, str], timeout_s: float) -> str:
    """Raises OSError: it cannot be run, fails, or takes too long."""
    process = await asyncio.create_subprocess_exec(
        tool,
        *QUERY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=env,
    )
    try:
        async with asyncio.timeout(timeout_s):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(TimeoutError):  # the kernel may hold on to it
                await asyncio.wait_for(process.wait(), KILL_S)
    if process.returncode:
        raise OSError(f"status {process.returncode}")
    return told.decode("utf-8", "replace")


def parse(text: str, visible: str | None = None) -> list[DeviceInfo]:
    """Lines of index, UUID, total and free MiB. `visible` chooses among them and numbers them anew,
    as CUDA has it: the first entry that names none ends the list."""
    found: dict[str, tuple[int | None, int | None]] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 4 and words[0].isdecimal():
            memory = _bytes(words[2]), _bytes(words[3])
            found[words[0]] = found[words[1]] = memory
    if visible is None:
        names = [name for name in found if name.isdecimal()]
    else:
        names = _chosen(visible, found)
    rows = [found[name] for name in names]
    return [
        DeviceInfo(f"cuda:{number}", total, available)
        for number, (total, available) in enumerate(rows)
        if total is not None
    ]


def _chosen(visible: str, found: Mapping[str, object]) -> list[str]:
    names: list[str] = []
    for word in (word.strip() for word in visible.split(",")):
        if not word:
            break
        exact = word.lstrip("0") or "0" if word.isdecimal() else word
        matches = [name for name in found if name == exact]
        if not exact.isdecimal():  # a UUID may be cut short
            matches = [name for name in found if name.startswith(exact)]
        if len(matches) != 1:
            break
        names += matches
    return names


def _bytes(mib: str) -> int | None:
    """Of `81559`; None of `[N/A]`, which the tool says where memory is the host's."""
    return int(mib) * _MIB if mib.isdecimal() and len(mib) < _MAX_DIGITS else None
