"""One look at a server as `top` shows it: what was seen, and its lines for a screen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llmos.cli.find import short
from llmos.cli.text import age, count, fit, one_line, seconds, size

if TYPE_CHECKING:
    from llmos.abi.syscall import ProcessInfo, ReplicaInfo, StatusInfo
    from llmos.sdk import Client

CLASSES = ("interactive", "default", "batch")
STATES = ("running", "paused", "suspending", "waiting", "preparing", "suspended")
BAR_WIDTH = 16
WIDE = 110
MIN_PROCESS_LINES = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """What the server said. `tokens_per_s` since the look before; None without one."""

    at_ns: int
    tokens_per_s: float | None
    status: StatusInfo
    replicas: list[ReplicaInfo]
    processes: list[ProcessInfo]

    def to_json(self) -> dict[str, Any]:
        """For programs: the server's own objects in one."""
        from llmos.sdk.wire import to_wire

        made = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: to_wire(value) for name, value in made.items()}


class Meter:
    """Looks at a server again and again, and knows how fast it went in between."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: tuple[float, int, int] | None = None

    def look(self) -> Frame:
        """A frame, its processes in the order of their claim to a row."""
        status, now_s = self._client.status(), time.monotonic()
        before, speed = self._before, None
        if before is not None and before[2] == status.epoch and now_s > before[0]:
            speed = (status.num_tokens - before[1]) / (now_s - before[0])
        self._before = (now_s, status.num_tokens, status.epoch)
        processes = self._client.processes.list(state="live")
        processes.sort(key=_claim)
        return Frame(time.time_ns(), speed, status, self._client.replicas(), processes)


def _claim(info: ProcessInfo) -> tuple[int, int, float, int]:
    rank = STATES.index(info.state) if info.state in STATES else len(STATES)
    eta_s = info.eta_s if info.eta_s is not None else 0.0
    return (rank, -info.service_class, eta_s, info.created_ns)


class Line(NamedTuple):
    """Text and how it looks: `title`, `chosen`, `bad` or plain."""

    text: str
    look: str = ""


def lines(
    frame: Frame, where: str, width: int, height: int | None = None, chosen: int | None = None
) -> list[Line]:
    """A screen full, every line exactly `width` wide; without a height, everything."""
    head = [*_head(frame, where)]
    replicas = [*_replicas(frame.replicas, width)]
    if height is not None:
        room = max(2, height - len(head) - MIN_PROCESS_LINES - 2)
        replicas = replicas[:room]
    made = [*head, *replicas, Line("")]
    room = len(frame.processes) if height is None else max(0, height - len(made) - 1)
    first = 0 if chosen is None else max(0, chosen - room + 1)
    made += _processes(frame.processes[first : first + room], width, chosen, first)
    return [Line(fit(line.text, width), line.look) for line in made][:height]


def _head(frame: Frame, where: str) -> Iterator[Line]:
    status = frame.status
    state = "ready" if status.ready else "NOT READY"
    yield Line(
        f"llmos {status.version}  {state}  up {age(status.started_ns)}  "
        f"policy {status.policy or '?'}  at {where}",
        "" if status.ready else "bad",
    )
    for problem in status.problems[:2]:
        yield Line(f"problem: {problem}", "bad")
    waiting = "  ".join(f"{name} {status.waiting.get(name, 0)}" for name in CLASSES)
    speed = "-" if frame.tokens_per_s is None else f"{frame.tokens_per_s:.1f}"
    yield Line(f"{speed} tok/s  running {status.num_running}  waiting: {waiting}")
    used, budget = status.memory_reserved_bytes, status.memory_budget_bytes
    yield Line(
        f"memory {bar(used, budget)} {size(used)} reserved of {size(budget)}, "
        f"{size(status.memory_total_bytes)} in all"
    )
    yield Line("")


def bar(used: float, whole: float) -> str:
    """`[####----]`: how much of the whole."""
    share = min(1.0, used / whole) if whole > 0 else 0.0
    full = round(share * BAR_WIDTH)
    return f"[{'#' * full}{'-' * (BAR_WIDTH - full)}]"


def _replicas(replicas: list[ReplicaInfo], width: int) -> Iterator[Line]:
    widths = (9, min(max(12, width - 73), 40), 9, BAR_WIDTH + 8, 5, 9)
    titles = ("REPLICA", "MODEL", "STATE", "ROWS", "WAIT", "RESIDENT", "KV")
    yield Line(_row(titles, widths), "title")
    for r in replicas:
        rows = f"{bar(r.num_running, r.num_slots)} {r.num_running}/{r.num_slots}"
        memory = r.memory
        yield Line(
            _row(
                (
                    short(r.replica_id),
                    r.model,
                    r.state,
                    rows,
                    str(r.num_waiting),
                    size(memory.rss_bytes if memory else None),
                    size(memory.kv_used_bytes if memory else None),
                ),
                widths,
            )
        )
    if not replicas:
        yield Line("no model is resident")


def _processes(
    processes: list[ProcessInfo], width: int, chosen: int | None, first: int
) -> Iterator[Line]:
    wide = width >= WIDE
    titles: tuple[str, ...] = ("PROCESS", "CLASS", "NI", "STATE", "MODEL", "TOKENS", "ETA")
    widths: tuple[int, ...] = (8, 11, 3, 10, 12, 6, 6)
    if wide:
        titles, widths = (*titles, "AGE", "BY"), (8, 11, 3, 10, 20, 6, 6, 6, 12)
    yield Line(_row((*titles, "REASON"), widths), "title")
    for i, p in enumerate(processes, first):
        cells = [
            short(p.process_id),
            p.service_class.name.lower(),
            str(p.nice),
            p.state,
            p.model,
            count(p.prompt_tokens + p.completion_tokens),
            seconds(p.eta_s),
        ]
        if wide:
            cells += [age(p.created_ns), p.principal]
        yield Line(_row((*cells, p.reason), widths), "chosen" if i == chosen else "")
    if not processes:
        yield Line("nothing runs and nothing waits")


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """All but the last cell in columns."""
    columns = [fit(cell, width) for cell, width in zip(cells, widths, strict=False)]
    return " ".join([*columns, *(one_line(cell) for cell in cells[len(widths) :])])
