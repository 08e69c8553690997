"""`abi.Driver` over an engine that batches and draws by itself.

The engine is asked for tokens only; what they are as text, and whether they end the answer, is
decided here as for every driver. It has no state of a request that could be taken out: who is
suspended is recomputed, and who is paused gives up its place and reads its tokens anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Aborted, Event, Failed
from llmos.abi.inference import WorkItem
from llmos.drivers.batcher.engine import Open, Opened, Row
from llmos.drivers.batcher.rows import Rows
from llmos.drivers.items import check_ids, check_plain, check_room, read_tokens
from llmos.drivers.resident import read_resident
from llmos.drivers.sampling.params import check
from llmos.drivers.text.answer import Answer
from llmos.drivers.text.folder import find_ends, read_decoding
from llmos.drivers.text.stop import StopStrings
from llmos.errors import (
    Conflict,
    EngineFailed,
    InvalidRequest,
    ModelRejected,
    UnsupportedParameter,
)
from llmos.weights import inspect


class BatcherDriver:
    """One model, at most `num_slots` requests in the engine's batch; more wait here, in order."""

    def __init__(self, capabilities: Capabilities, open_engine: Open) -> None:
        self.capabilities = capabilities
        self._name = capabilities.driver
        self._open_engine = open_engine
        self._opened: Opened | None = None
        self._outbox: list[Event] = []

    # life

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Raises ModelRejected, LoadFailed."""
        progress(0.0, "header")
        folder = Path(spec.folder)
        facts = inspect(folder)
        if facts.format not in self.capabilities.formats:
            reads = " and ".join(self.capabilities.formats)
            raise ModelRejected(
                f"{folder.name}: {facts.format} files; the {self._name} driver reads {reads}"
            )
        self._decoding, self._ends = read_decoding(folder), find_ends(folder)
        progress(0.05, "weights")
        opened = self._open_engine(spec, facts, progress)
        self._vocab_size = facts.vocab_size
        self._rows = Rows(opened.engine, opened.num_slots)
        now = opened.resident()
        self._bound_bytes = now.rss_bytes + opened.room_bytes
        self._opened = opened
        progress(1.0, "ready")
        return LoadReport(
            dtype=opened.dtype,
            device=opened.device,
            deterministic=False,
            context_length=opened.context_length,
            num_slots=opened.num_slots,
            memory=self.memory(),
            warnings=opened.warnings,
            engine=opened.about,
        )

    def unload(self) -> None:
        """Forget the model and every request. Idempotent."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            del self._rows
            self._outbox.clear()
            opened.engine.close()

    def park(self) -> MemoryReport:
        """Not declared: see `capabilities`."""
        raise EngineFailed(f"unsupported: the {self._name} driver does not park")

    def unpark(self) -> MemoryReport:
        """Not declared: see `capabilities`."""
        raise EngineFailed(f"unsupported: the {self._name} driver does not park")

    # requests

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        opened = self._open()
        prompt, generated = self._check(item)
        wanted = check_room(item, len(prompt), len(generated), opened.context_length)
        opened.engine.check(item.sampling, wanted)
        seed = item.sampling.seed
        row = Row(
            item=item,
            prompt=prompt,
            answer=self._answer(item, prompt, wanted),
            seed=secrets.randbits(32) if seed is None else seed,
        )
        ended = row.answer.replay(generated, False)
        if ended is None:
            self._rows.add(row)
        else:
            self._outbox.append(ended)

    def _answer(self, item: WorkItem, prompt: list[int], wanted: int) -> Answer:
        return Answer(
            item=item,
            num_prompt=len(prompt),
            max_new=wanted,
            eos_ids=frozenset() if item.sampling.ignore_eos else self._ends,
            stops=StopStrings(item.sampling.stop),
            detokenizer=self._decoding.start(prompt, item.shown),
        )

    def _check(self, item: WorkItem) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, and of the answer as far as it was drawn. Raises UserError."""
        check_plain(item, self.capabilities.features)
        if item.options:
            unknown = ", ".join(sorted(item.options))
            raise UnsupportedParameter(
                f"the {self._name} driver has no option {unknown}", param="llmos.driver"
            )
        check(item.sampling)
        check_ids(item.shown, self._vocab_size, "shown")
        prompt = read_tokens(item.tokens, self._vocab_size, "prompt")
        if not prompt:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        if self._rows.find(item.request_id) is not None:
            raise Conflict(f"{item.request_id} is in the batch already")
        return prompt, read_tokens(item.generated, self._vocab_size, "generated")

    def pause(self, request_id: str) -> None:
        """From the next step on; its place is somebody else's then."""
        if self._opened is not None:
            self._rows.pause(request_id)

    def unpause(self, request_id: str) -> None:
        """It stands in line again."""
        if self._opened is not None:
            self._rows.unpause(request_id)

    def abort(self, request_id: str, reason: str) -> None:
        """The row is free at once; the next step tells."""
        if self._opened is not None and (row := self._rows.find(request_id)):
            self._rows.remove(row)
            self._outbox.append(Aborted(request_id, reason, row.answer.usage))

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        """Not declared: see `capabilities`."""
        raise EngineFailed(f"unsupported: requests of the {self._name} driver are recomputed")

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Not declared: see `capabilities`."""
        raise EngineFailed(f"unsupported: requests of the {self._name} driver are recomputed")

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Not declared: see `capabilities`."""
        raise EngineFailed(f"unsupported: the {self._name} driver attaches no programs")

    # work

    def wait_s(self) -> float | None:
        """0 while anybody can move."""
        if self._outbox:
            return 0.0
        if self._opened is None:
            return None
        moves = self._rows.can_move or self._opened.engine.has_work()
        return 0.0 if moves else None

    def step(self) -> list[Event]:
        """Seat; one iteration of the engine; a token of everybody who has one."""
        opened = self._open()
        events, self._outbox = self._outbox, []
        self._rows.fill()
        if opened.engine.has_work():
            opened.engine.poll()
        for row in self._rows:
            if row.unsaid:
                # one at a time, also of an engine that runs ahead: who is paused or aborted now
                # has said no more than others
                made = row.answer.accept(row.unsaid.popleft(), False)
                events += made
                if len(made) > 1:
                    self._rows.remove(row)
            elif row.error is not None:
                self._rows.remove(row)
                events.append(Failed(row.request_id, row.error.to_info(), row.answer.usage))
        return events

    # state

    def health(self) -> Health:
        """Counts of requests in the batch and of paused ones; who waits is told in words."""
        if self._opened is None:
            return Health(ok=False, detail="no model is loaded")
        rows = self._rows
        detail = f"{rows.num_waiting} waiting" if rows.num_waiting else ""
        is_well = self._opened.engine.is_well()
        return Health(is_well, rows.num_running, rows.num_paused, detail)

    def memory(self) -> MemoryReport:
        """Measured now."""
        opened = self._opened
        if opened is None:
            now = read_resident()
            return MemoryReport(now.rss_bytes, bound_bytes=now.rss_bytes, peak_bytes=now.peak_bytes)
        now = opened.resident()
        num_tokens = sum(len(row.known) for row in self._rows)
        used = min(num_tokens * opened.kv_token_bytes, opened.kv_reserved_bytes)
        return MemoryReport(
            rss_bytes=now.rss_bytes,
            weights_bytes=opened.weights_bytes,
            kv_reserved_bytes=opened.kv_reserved_bytes,
            kv_used_bytes=used,
            bound_bytes=max(self._bound_bytes, now.rss_bytes),
            peak_bytes=max(now.peak_bytes, now.rss_bytes),
            device_bytes=0 if opened.device == "cpu" else _device_bytes(opened),
        )

    def _open(self) -> Opened:
        if self._opened is None:
            raise EngineFailed("no model is loaded")
        return self._opened


def _device_bytes(opened: Opened) -> int:
    return opened.weights_bytes + opened.kv_reserved_bytes
