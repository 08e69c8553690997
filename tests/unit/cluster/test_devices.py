"""What a tool that stands in for NVIDIA's says, or does not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.node import DeviceInfo
from llmos.cluster import devices
from llmos.cluster.devices import Devices, parse
from llmos.cluster.local import LocalNode

MIB = 1 << 20
TWO = "0, GPU-aa11, 81559, 81000\n1, GPU-ab22, 40960, 4000\n"
FIRST, SECOND = (81559 * MIB, 81000 * MIB), (40960 * MIB, 4000 * MIB)


def tool(folder: Path, script: str) -> dict[str, str]:
    """The environment in which this is NVIDIA's tool; each run adds a line to `runs`."""
    path = folder / "nvidia-smi"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/runs\n{script}\n')
    path.chmod(0o700)
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"}


def num_runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def telling(text: str) -> str:
    return f"cat <<'EOT'\n{text}EOT"


def test_it_is_asked_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = LocalNode(tool(tmp_path, telling(TWO)))

    async def main() -> None:
        expected = [DeviceInfo("cuda:0", *FIRST), DeviceInfo("cuda:1", *SECOND)]
        assert await asyncio.gather(*(node.devices() for _ in range(5))) == [expected] * 5
        assert num_runs(tmp_path) == 1
        monkeypatch.setattr(node._devices, "_fresh_until_s", 0.0)
        assert await node.devices() == expected
        assert num_runs(tmp_path) == 2

    asyncio.run(main())
    assert "--query-gpu=index,uuid,memory.total,memory.free" in (tmp_path / "runs").read_text()


def test_without_the_tool_there_are_none(tmp_path: Path) -> None:
    assert asyncio.run(LocalNode({"PATH": str(tmp_path)}).devices()) == []
    assert asyncio.run(LocalNode({}).devices()) == []


BROKEN = {
    "fails": f"{telling(TWO)}\nexit 9",
    "hangs": "exec sleep 600",
    "is killed": "kill -9 $$",
    "is no program": "",
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_tool_that_does_not_answer_is_left_alone_for_a_while(
    tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = Devices(tool(tmp_path, telling(TWO)), timeout_s=5.0)

    async def main() -> None:
        assert len(await found.current()) == 2
        tool(tmp_path, BROKEN[way])
        if way == "is no program":
            (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF nothing")
        found._fresh_until_s, found._timeout_s = 0.0, 0.3
        expected = [DeviceInfo("cuda:0", FIRST[0]), DeviceInfo("cuda:1", SECOND[0])]
        assert await found.current() == expected
        assert await found.current() == expected
        assert caplog.text.count("nvidia-smi does not answer") == 1
        tool(tmp_path, telling(TWO))
        found._fresh_until_s, found._timeout_s = 0.0, 5.0
        assert (await found.current())[1].available_bytes == SECOND[1]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [FIRST, SECOND]),
        ("1", [SECOND]),
        ("1,0", [SECOND, FIRST]),
        ("GPU-ab22", [SECOND]),
        ("GPU-ab, 0", [SECOND, FIRST]),
        ("GPU-a", []),  # which of the two is not said
        ("0,7,1", [FIRST]),
        ("-1", []),
        ("", []),
        ("MIG-1", []),
    ],
)
def test_those_that_workers_see(visible: str | None, expected: list[tuple[int, int]]) -> None:
    named = [DeviceInfo(f"cuda:{number}", *memory) for number, memory in enumerate(expected)]
    assert parse(TWO, visible) == named


def test_memory_that_is_the_host_s() -> None:
    text = "0, GPU-1, [N/A], [N/A]\n1, GPU-2, 100, [Unknown Error]\n"
    assert parse(text) == [DeviceInfo("cuda:1", 100 * MIB)]


@given(st.text(), st.none() | st.text())
def test_whatever_it_says_it_never_raises(text: str, visible: str | None) -> None:
    parse(text, visible)


def test_whoever_gives_up_leaves_no_process(tmp_path: Path) -> None:
    found = Devices(tool(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600"))
    os.mkfifo(tmp_path / "pid")

    async def main() -> int:
        task = asyncio.ensure_future(found.current())
        pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    pid = asyncio.run(main())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert devices.KILL_S < devices.TIMEOUT_S
