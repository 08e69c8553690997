"""What the kernel gives to its jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llmos.abi.channel import Channel
from llmos.abi.files import FileStore
from llmos.abi.jobs import JobRecord, JobStore
from llmos.abi.program import ProgramEntry
from llmos.abi.registry import ModelVersion


@dataclass(frozen=True, slots=True)
class JobServices:
    """What jobs need that the kernel is given. `program_of` raises PluginError for a name that is
    nobody's; `find_model` finds a version, raising ModelNotFound; `register` makes a folder that
    lies within another a version of a model, in the name of a job's owner; `connect` opens a front
    end whose requests are the job's children; `is_revoked` tells of a principal whether its key is.
    """

    store: JobStore
    files: FileStore
    program_of: Callable[[str], ProgramEntry]
    find_model: Callable[[str], ModelVersion]
    register: Callable[[JobRecord, str, str, str], Awaitable[str]]
    connect: Callable[[str], Channel]
    is_revoked: Callable[[str], bool]
