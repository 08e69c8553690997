"""A model behind somebody else's API, as a driver: rows are requests on their way."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Aborted, Event, Failed
from llmos.abi.inference import WorkItem
from llmos.abi.remote import RemoteSpec
from llmos.drivers.openai.courier import Call, Lost, Over, Said
from llmos.drivers.openai.folder import read_folder
from llmos.drivers.openai.limits import ROOM_BYTES
from llmos.drivers.openai.line import Line
from llmos.drivers.openai.row import Row, make_row
from llmos.drivers.resident import read_resident
from llmos.errors import EngineFailed, LoadFailed

_CAPABILITIES = Capabilities(
    driver="openai",
    kinds=["generate", "embeddings"],
    formats=["openai"],
    features=["grammar", "logit_bias", "logprobs"],
)


class OpenAIDriver:
    """Behind `abi.Driver` and `abi.Waking`. It holds no state of a request that could be taken out:
    a suspended one is asked again, with its answer so far."""

    def __init__(self) -> None:
        self.capabilities = _CAPABILITIES
        self._line: Line | None = None
        self._spec: RemoteSpec | None = None
        self._num_slots = 1
        self._context_length = 0
        self._rows: dict[str, Row] = {}
        self._paused: dict[str, Row] = {}
        self._waiting: deque[Row] = deque()
        self._of_call: dict[Call, Row] = {}
        self._ended: list[Event] = []

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Reads what there is to know. Nobody is asked anything: that costs, and may be down now.

        Raises LoadFailed, also where a secret is not set.
        """
        logging.getLogger("httpx").setLevel(logging.WARNING)
        progress(0.0, "remote")
        for name in spec.options:
            raise LoadFailed(f"a remote model has no option {name[:80]!r}")
        remote = read_folder(Path(spec.folder))
        for key in remote.keys:
            if key not in spec.secrets:
                raise LoadFailed(f"the secret {key} is not set: see `docs/drivers.md`")
        self._spec = remote
        self.capabilities = msgspec.structs.replace(
            _CAPABILITIES, kinds=[*remote.kinds], egress=remote.hosts, secrets=remote.keys
        )
        self._num_slots = min(spec.num_slots, remote.max_concurrency)
        self._context_length = min(spec.context_length, remote.context_length)
        self._line = Line(remote, {name: secret.value for name, secret in spec.secrets.items()})
        self._line.open()
        progress(1.0, "remote")
        return LoadReport(
            "",
            "remote",
            False,
            self._context_length,
            self._num_slots,
            self.memory(),
            _warnings(remote),
        )

    def unload(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None
        for kept in (self._rows, self._paused, self._waiting, self._of_call, self._ended):
            kept.clear()

    def wake_fd(self) -> int:
        assert self._line is not None
        return self._line.fd

    def submit(self, item: WorkItem) -> None:
        if self._spec is None:
            raise EngineFailed("no model is loaded")
        row = make_row(item, self._spec, self._context_length)
        if row.is_over:
            self._ended.append(row.ended())
        else:
            self._waiting.append(row)

    def step(self) -> list[Event]:
        events, self._ended = self._ended, []
        self._take_news()
        for row in list(self._rows.values()):
            if row.pending:
                self._advance(row, events)
        self._fill()
        return events

    def _take_news(self) -> None:
        if self._line is None:
            return
        for news in self._line.take():
            if row := self._of_call.get(news.call):  # else nobody wants it any more
                row.pending.append(news)

    def _advance(self, row: Row, events: list[Event]) -> None:
        """All that has come of it, as one event, and its end."""
        said = []
        while row.pending and isinstance(row.pending[0], Said):
            said.append(row.pending.popleft())
        if said:
            events.append(row.tokens(said))  # type: ignore[arg-type]
        if row.pending:
            last = row.pending.popleft()
            request_id = row.item.request_id
            if isinstance(last, Lost):
                events.append(Failed(request_id, last.error.to_info(), row.count()))
            else:
                assert isinstance(last, Over)
                if (outputs := row.outputs(last)) is not None:
                    events.append(outputs)
                events.append(row.finished(last))
            del self._rows[request_id], self._of_call[row.call]

    def _fill(self) -> None:
        assert self._line is not None or not self._waiting
        while self._waiting and len(self._rows) < self._num_slots:
            row = self._waiting.popleft()
            self._rows[row.item.request_id] = row
            if row.is_sent:
                self._line.release(row.call)  # type: ignore[union-attr]
            else:
                row.is_sent = True
                self._of_call[row.call] = row
                self._line.send(row.call)  # type: ignore[union-attr]

    def wait_s(self) -> float | None:
        has_row = len(self._rows) < self._num_slots
        if self._ended or (self._waiting and has_row):
            return 0.0
        if any(row.pending for row in self._rows.values()):
            return 0.0
        return 0.0 if self._line is not None and self._line.has_news() else None

    def pause(self, request_id: str) -> None:
        """The remote is read no further; what it has sent is kept."""
        if row := self._rows.pop(request_id, None):
            if self._line is not None:
                self._line.hold(row.call)
            self._paused[request_id] = row
        elif row := self._find(request_id):
            self._waiting.remove(row)
            self._paused[request_id] = row

    def unpause(self, request_id: str) -> None:
        if row := self._paused.pop(request_id, None):
            self._waiting.append(row)

    def abort(self, request_id: str, reason: str) -> None:
        """The connection is closed: a remote that notices stops as well."""
        row = self._rows.pop(request_id, None) or self._paused.pop(request_id, None)
        if row is None and (row := self._find(request_id)):
            self._waiting.remove(row)
        if row is None:
            return
        if row.is_sent and self._line is not None:
            self._of_call.pop(row.call, None)
            self._line.cancel(row.call)
        self._ended.append(Aborted(request_id, reason, row.count()))

    def _find(self, request_id: str) -> Row | None:
        return next((r for r in self._waiting if r.item.request_id == request_id), None)

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        raise EngineFailed("a remote model has no snapshots: its requests are recomputed")

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        raise EngineFailed("a remote model has no snapshots: its requests are recomputed")

    def park(self) -> MemoryReport:
        raise EngineFailed("a remote model has no memory to park")

    def unpark(self) -> MemoryReport:
        raise EngineFailed("a remote model has no memory to park")

    def attach(self, program: str, budget: dict[str, float]) -> None:
        raise EngineFailed("a remote model cannot be looked into")

    def health(self) -> Health:
        """Of this end; what is known of the others is told beside it."""
        line = self._line
        detail = "; ".join(line.states()) if line is not None else ""
        is_ok = line is not None and line.is_alive
        return Health(is_ok, len(self._rows), len(self._paused), detail)

    def memory(self) -> MemoryReport:
        now = read_resident()
        return MemoryReport(
            now.rss_bytes, bound_bytes=now.rss_bytes + ROOM_BYTES, peak_bytes=now.peak_bytes
        )


def _warnings(remote: RemoteSpec) -> list[str]:
    return [
        f"{endpoint.host}: the key {endpoint.key} is sent there without encryption"
        for endpoint in remote.endpoints
        if endpoint.key and endpoint.url.startswith("http:") and not _is_here(endpoint.host)
    ]


def _is_here(host: str) -> bool:
    return host.rpartition(":")[0] in ("localhost", "127.0.0.1", "::1")
