"""What the clients give back: abi's own structs, which a notebook draws and a terminal reads.

Each is what it was (`isinstance`, fields, equality, JSON); only how it is shown is new. How that
looks is said in `draw`, which is loaded when something is shown for the first time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from llmos.abi.home import DiskReport
from llmos.abi.jobs import JobRecord
from llmos.abi.memory import MemoryInfo
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import (
    NewKey,
    ProcessInfo,
    ProcessStory,
    ReplicaInfo,
    StatusInfo,
)
from llmos.abi.syscall_jobs import JobList, JobReply

T = TypeVar("T")


class Shown:
    """A struct that is shown as its card."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from llmos.sdk.draw.cards import card
        from llmos.sdk.draw.sheet import sheet

        return sheet(card(self).html())

    def __repr__(self) -> str:
        from llmos.sdk.draw.cards import card
        from llmos.sdk.draw.columns import one_line
        from llmos.sdk.draw.words import plain

        return f"<{one_line(plain(card(self).text()))}>"

    def __eq__(self, other: object) -> bool:
        # the struct's own equality wants the very same class on both sides
        if not isinstance(other, msgspec.Struct) or not isinstance(self, msgspec.Struct):
            return NotImplemented
        if not issubclass(type(self), type(other)) and not issubclass(type(other), type(self)):
            return NotImplemented
        return msgspec.structs.astuple(self) == msgspec.structs.astuple(other)

    def __hash__(self) -> int:
        assert isinstance(self, msgspec.Struct)
        return hash(msgspec.structs.astuple(self))


class Listed(list[T], Generic[T]):
    """A list that is shown as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from llmos.sdk.draw.rows import html_table
        from llmos.sdk.draw.sheet import sheet

        return sheet(html_table(self))

    def __repr__(self) -> str:
        from llmos.sdk.draw.rows import lines

        return lines(self)


class Model(Shown, ModelVersion, frozen=True):
    """A model version."""


class Process(Shown, ProcessInfo, frozen=True):
    """A request or a job."""


class Story(Shown, ProcessStory, frozen=True, tag="r.process"):
    """A process and why it is where it is: a timeline."""

    info: Process


class Replica(Shown, ReplicaInfo, frozen=True):
    """A resident model version."""


class Status(Shown, StatusInfo, frozen=True, tag="r.status"):
    """The kernel's own account of itself."""


class Memory(Shown, MemoryInfo, frozen=True, tag="r.memory"):
    """Every device's ledger."""


class Disk(Shown, DiskReport, frozen=True, tag="r.disk"):
    """What uses the home's disk."""


class Secret(Shown, NewKey, frozen=True, tag="r.key"):
    """A new key. `secret` is in it, and not shown."""


class Record(Shown, JobRecord, frozen=True):
    """A job as it is kept."""


class Job(Shown, JobReply, frozen=True, tag="r.job"):
    """A job and when it may end."""

    job: Record


class Jobs(Shown, JobList, frozen=True, tag="r.jobs"):
    """A page of jobs, newest first."""

    jobs: list[Record]  # type: ignore[assignment]  # narrower, and read only

    def _repr_html_(self) -> str:
        return Listed(self.jobs)._repr_html_()

    def __repr__(self) -> str:
        return repr(Listed(self.jobs))
