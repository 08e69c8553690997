"""/os/v1/processes: requests and jobs, waiting, running and lately ended."""

from __future__ import annotations

from llmos.abi.principal import Principal
from llmos.abi.syscall import (
    Done,
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
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import answer, ask, ref_of
from llmos.api.wire import to_wire
from llmos.shapes.inputs import read_plain

LIVE = (
    *("preparing", "waiting", "running", "paused", "suspending", "suspended"),
    *("blocked", "pending"),
)
ENDED = ("finished", "failed", "aborted", "succeeded", "cancelled", "dead")
GROUPS = {"live": frozenset(LIVE), "ended": frozenset(ENDED)}
"""Names for several states at once."""

FILTERS = ("state", "model", "tenant", "mine")
DEFAULT_WAIT_S = 60.0
MAX_WAIT_S = 3600.0


async def list_processes(call: Call) -> None:
    """Those one may see: all of them, or by `state`, `model`, `tenant`, or only one's own."""
    wanted = Filter(_query(call, FILTERS), call.principal)
    listed = await ask(call, ListProcesses(), ProcessList)
    kept = [info for info in listed.processes if wanted.takes(info)]
    await call.send_json(to_wire(ProcessList(kept)))


class Filter:
    """Which processes were asked for. Raises InvalidRequest."""

    def __init__(self, query: Query, principal: Principal) -> None:
        named = query.words("state", (*LIVE, *ENDED, *GROUPS))
        self._states = frozenset().union(*(GROUPS.get(name, {name}) for name in named))
        self._model = query.text("model")
        self._tenant = query.text("tenant")
        self._owner = (principal.tenant_id, principal.name) if query.flag("mine") else None

    def takes(self, info: ProcessInfo) -> bool:
        """A model is named with its version, or without for all of them."""
        return (
            (not self._states or info.state in self._states)
            and (self._model is None or self._model in (info.model, info.model.split(":")[0]))
            and (self._tenant is None or info.tenant_id == self._tenant)
            and (self._owner is None or (info.tenant_id, info.principal) == self._owner)
        )


async def show_process(call: Call) -> None:
    """Every decision about it, with reasons: `why` and `logs`."""
    await answer(call, ShowProcess(ref_of(call, "process_id")), ProcessStory)


async def nice_process(call: Call) -> None:
    """How urgent it is from now on."""
    body = read_plain(NiceBody, await read_json(call))
    done = await ask(call, body.to_call(ref_of(call, "process_id")), Done)
    await call.send_json({"done": done.what})


async def wait_process(call: Call) -> None:
    """Its story when it has ended, or as it is after `timeout_s`."""
    query = _query(call, ("timeout_s",))
    timeout_s = query.number("timeout_s", DEFAULT_WAIT_S, 0, MAX_WAIT_S)
    await answer(call, WaitProcess(ref_of(call, "process_id"), timeout_s), ProcessStory)


async def kill_process(call: Call) -> None:
    """End a process; its stream ends with an error."""
    done = await ask(call, KillProcess(ref_of(call, "process_id")), Done)
    await call.send_json({"done": done.what})


def _query(call: Call, names: tuple[str, ...]) -> Query:
    return Query(call.scope["query_string"], names)


async def suspend_process(call: Call) -> None:
    """Off the machine until it is resumed; of a request, answered when its state is safe."""
    done = await ask(call, SuspendProcess(ref_of(call, "process_id")), Done)
    await call.send_json({"done": done.what})


async def resume_process(call: Call) -> None:
    """It may go on."""
    done = await ask(call, ResumeProcess(ref_of(call, "process_id")), Done)
    await call.send_json({"done": done.what})


_ONE = "/os/v1/processes/{process_id}"

ROUTES = [
    RouteSpec("GET", "/os/v1/processes", list_processes, "Requests and jobs: `ps`.", query=FILTERS),
    RouteSpec("GET", _ONE, show_process, "A process and why it is where it is: `why`."),
    RouteSpec("POST", _ONE + "/nice", nice_process, "Its class and nice: `nice`.", body=NiceBody),
    RouteSpec(
        "GET", _ONE + "/wait", wait_process, "Wait for its end: `wait`.", query=("timeout_s",)
    ),
    RouteSpec("POST", _ONE + "/suspend", suspend_process, "Take it off the machine: `suspend`."),
    RouteSpec("POST", _ONE + "/resume", resume_process, "Let it go on: `resume`."),
    RouteSpec("DELETE", _ONE, kill_process, "End a process: `kill`."),
]
