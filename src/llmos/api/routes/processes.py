"""/os/v1/processes: requests and jobs, waiting, running and lately ended."""

from __future__ import annotations

from llmos.abi.principal import Principal
from llmos.abi.syscall import (
    KillProcess,
    ListProcesses,
    ProcessInfo,
    ProcessList,
    ProcessStory,
    ResumeProcess,
    ShowProcess,
    SuspendProcess,
    WaitProcess,
)
from llmos.api.bodies.admin import NiceBody
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.parameters import Flag, Number, Text, Words
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, done, ref_of
from llmos.api.wire import DoneAnswer
from llmos.errors import Conflict
from llmos.shapes.inputs import read_plain

LIVE = (
    *("preparing", "waiting", "running", "paused", "suspending", "suspended"),
    *("blocked", "pending"),
)
ENDED = ("finished", "failed", "aborted", "succeeded", "cancelled", "dead")
GROUPS = {"live": frozenset(LIVE), "ended": frozenset(ENDED)}
"""Names for several states at once."""

STATE = Words("state", "In one of these states, or groups of them", (*LIVE, *ENDED, *GROUPS))
MODEL = Text("model", "Of this model; without a version, of all of them")
TENANT = Text("tenant", "Of this tenant")
MINE = Flag("mine", "Only the key's own")
FILTERS = (STATE, MODEL, TENANT, MINE)
TIMEOUT = Number("timeout_s", "Answer after so long, in seconds, whatever it does", 60.0, 0, 3600.0)


async def list_processes(call: Call) -> ProcessList:
    """Those one may see: all of them, or by `state`, `model`, `tenant`, or only one's own."""
    wanted = Filter(Query(call, FILTERS), call.principal)
    listed = await ask(call, ListProcesses(), ProcessList)
    return ProcessList([info for info in listed.processes if wanted.takes(info)])


class Filter:
    """Which processes were asked for. Raises InvalidRequest."""

    def __init__(self, query: Query, principal: Principal) -> None:
        named = query[STATE]
        self._states = frozenset().union(*(GROUPS.get(name, {name}) for name in named))
        self._model = query[MODEL]
        self._tenant = query[TENANT]
        self._owner = (principal.tenant_id, principal.name) if query[MINE] else None

    def takes(self, info: ProcessInfo) -> bool:
        """A model is named with its version, or without for all of them."""
        return (
            (not self._states or info.state in self._states)
            and (self._model is None or self._model in (info.model, info.model.split(":")[0]))
            and (self._tenant is None or info.tenant_id == self._tenant)
            and (self._owner is None or (info.tenant_id, info.principal) == self._owner)
        )


async def show_process(call: Call) -> ProcessStory:
    """Every decision about it, with reasons: `why` and `logs`."""
    return await ask(call, ShowProcess(ref_of(call, "process_id")), ProcessStory)


async def nice_process(call: Call) -> DoneAnswer:
    """How urgent it is from now on."""
    body = read_plain(NiceBody, await read_json(call))
    return await done(call, body.to_call(ref_of(call, "process_id")))


async def wait_process(call: Call) -> ProcessStory:
    """Its story when it has ended, or as it is after `timeout_s`."""
    timeout_s = Query(call, (TIMEOUT,))[TIMEOUT]
    return await ask(call, WaitProcess(ref_of(call, "process_id"), timeout_s), ProcessStory)


async def kill_process(call: Call) -> DoneAnswer:
    """End a process; its stream ends with an error."""
    return await done(call, KillProcess(ref_of(call, "process_id")))


async def suspend_process(call: Call) -> DoneAnswer:
    """Off the machine until it is resumed; of a request, answered when its state is safe."""
    return await done(call, SuspendProcess(ref_of(call, "process_id")))


async def resume_process(call: Call) -> DoneAnswer:
    """It may go on."""
    return await done(call, ResumeProcess(ref_of(call, "process_id")))


_ONE = "/os/v1/processes/{process_id}"

ROUTES = [
    RouteSpec("GET", "/os/v1/processes", list_processes, "Requests and jobs: `ps`.", query=FILTERS),
    RouteSpec("GET", _ONE, show_process, "A process and why it is where it is: `why`."),
    RouteSpec(
        "POST",
        _ONE + "/nice",
        nice_process,
        "Its class and nice: `nice`.",
        body=NiceBody,
        raises=(Conflict,),
    ),
    RouteSpec("GET", _ONE + "/wait", wait_process, "Wait for its end: `wait`.", query=(TIMEOUT,)),
    RouteSpec(
        "POST",
        _ONE + "/suspend",
        suspend_process,
        "Take it off the machine: `suspend`.",
        raises=(Conflict,),
    ),
    RouteSpec(
        "POST", _ONE + "/resume", resume_process, "Let it go on: `resume`.", raises=(Conflict,)
    ),
    RouteSpec("DELETE", _ONE, kill_process, "End a process: `kill`.", raises=(Conflict,)),
]
