"""Any order of requests, pauses, moves and losses on a driver with few pages.

Every answer is that of the request alone on another driver, and no page is lost.
"""

from __future__ import annotations

import dataclasses
import tempfile
from array import array
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Aborted, Event, Finished, Tokens
from llmos.abi.inference import WorkItem
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused import runner as module
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.drivers.native.limits import NativeLimits
from tests.unit.drivers.tiny import drive, make_item, make_model, make_spec, token_ids

CONTEXT, SLOTS = 80, 3
ROOTS = [[5] * 40, [5] * 17 + [6] * 20, [7, 8] * 20]
picks = st.integers(0, 99)


class Models:
    """The two drivers, loaded once: hypothesis makes a machine for every example."""

    folder: ClassVar[Path | None] = None
    lone: ClassVar[NativeDriver]
    answers: ClassVar[dict[str, list[int]]] = {}
    count: ClassVar[int] = 0

    @classmethod
    def load(cls, **fields: Any) -> NativeDriver:
        if cls.folder is None:
            cls.folder = Path(tempfile.mkdtemp(prefix="llmos-machine-"))
            make_model(cls.folder)
            cls.lone = cls.load(options={"engine": "fused", "guesses": False})
        driver = NativeDriver()
        given = {"num_slots": SLOTS, "context_length": CONTEXT, "options": {"engine": "fused"}}
        driver.load(make_spec(cls.folder, **(given | fields)), lambda fraction, what: None)
        return driver

    @classmethod
    def answer(cls, item: WorkItem) -> list[int]:
        """Of a request alone, nothing of it cached."""
        key = repr((item.tokens, item.sampling))
        if key not in cls.answers:
            cls.count += 1
            lone = msgspec.structs.replace(
                item, request_id="lone", cache_salt=f"{cls.count}", generated=b""
            )
            events = drive(cls.lone, [lone])["lone"]
            assert isinstance(events[-1], Finished)
            assert events[-1].usage.cached_tokens == 0
            cls.answers[key] = token_ids(events)
        return cls.answers[key]


@dataclasses.dataclass
class Asked:
    """A request here, or out in a snapshot."""

    item: WorkItem
    said: list[Event] = dataclasses.field(default_factory=list)
    snapshot: SnapshotRef | None = None
    given: list[int] = dataclasses.field(default_factory=list)

    @property
    def drawn(self) -> list[int]:
        return self.given + token_ids(self.said)


class FusedMachine(RuleBasedStateMachine):
    """Requests of few beginnings, so that they meet in the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Models.load()
        runner = self.driver._model()
        assert isinstance(runner, FusedRunner)
        self.runner = runner
        self.asked: dict[str, Asked] = {}
        self.num_asked = 0
        self.read: dict[str, list[list[int]]] = {}
        limits = NativeLimits(step_tokens=24, least_prefill=5, draft_match=2)
        self.patch = patch.object(module, "LIMITS", limits)
        self.patch.start()

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.patch.stop()
            self.driver.unload()

    # what may happen

    @rule(
        root=st.sampled_from(ROOTS),
        length=st.integers(1, 40),
        tail=st.lists(st.integers(3, 9), max_size=6),
        max_tokens=st.integers(1, 25),
        params=st.sampled_from([
            {},
            {},
            {"temperature": 1.0, "seed": 3},
            {"temperature": 2.0, "seed": 5, "top_k": 9},
            {"repetition_penalty": 1.5},
        ]),
        salt=st.sampled_from(["a", "b"]),
    )  # fmt: skip
    def submit(
        self,
        root: list[int],
        length: int,
        tail: list[int],
        max_tokens: int,
        params: dict[str, Any],
        salt: str,
    ) -> None:
        self.num_asked += 1
        name = f"r{self.num_asked}"
        prompt = root[:length] + tail
        item = make_item(name, prompt, max_tokens=max_tokens, ignore_eos=True, **params)
        item = msgspec.structs.replace(item, cache_salt=salt)
        self.asked[name] = Asked(item)
        self.driver.submit(item)

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            for event in self.driver.step():
                asked = self.asked[event.request_id]
                asked.said.append(event)
                if not isinstance(event, Tokens):
                    self.end(event.request_id)

    here = precondition(lambda self: any(a.snapshot is None for a in self.asked.values()))
    out = precondition(lambda self: any(a.snapshot for a in self.asked.values()))

    def pick(self, number: int, *, out: bool = False) -> str:
        names = [n for n, a in self.asked.items() if (a.snapshot is not None) == out]
        return names[number % len(names)]

    @here
    @rule(number=picks)
    def pause(self, number: int) -> None:
        self.driver.pause(self.pick(number))

    @here
    @rule(number=picks)
    def unpause(self, number: int) -> None:
        self.driver.unpause(self.pick(number))

    @here
    @rule(number=picks)
    def abort(self, number: int) -> None:
        name = self.pick(number)
        self.driver.abort(name, "test")
        self.step(1)
        assert name not in self.asked

    @here
    @rule(number=picks)
    def suspend(self, number: int) -> None:
        asked = self.asked[self.pick(number)]
        asked.snapshot = self.driver.suspend(asked.item.request_id)

    @out
    @rule(number=picks)
    def resume(self, number: int) -> None:
        asked = self.asked[self.pick(number, out=True)]
        assert asked.snapshot is not None
        self.driver.resume(asked.item, asked.snapshot)
        Path(asked.snapshot.path).unlink()
        asked.snapshot = None

    @here
    @rule(number=picks)
    def recompute(self, number: int) -> None:
        """Lost with what it had, and asked for again by a new name."""
        lost = self.asked[self.pick(number)]
        drawn = lost.drawn
        self.abort(number)
        self.num_asked += 1
        name = f"r{self.num_asked}"
        item = msgspec.structs.replace(
            lost.item, request_id=name, generated=array("i", drawn).tobytes()
        )
        self.asked[name] = Asked(item, given=drawn)
        self.driver.submit(item)

    @precondition(lambda self: not self.runner_requests())
    @rule()
    def park(self) -> None:
        assert self.driver.park().kv_reserved_bytes == 0
        self.driver.unpark()
        self.read.clear()
        assert self.runner._pages.num_cached == 0

    # what must be

    def runner_requests(self) -> list[str]:
        return [name for name, asked in self.asked.items() if asked.snapshot is None]

    def end(self, name: str) -> None:
        asked = self.asked.pop(name)
        last = asked.said[-1]
        prompt = array("i", asked.item.tokens).tolist()
        whole = Models.answer(asked.item)
        assert isinstance(last, Finished | Aborted)
        if isinstance(last, Finished):
            assert asked.drawn == whole
            assert last.deterministic
        assert asked.drawn == whole[: len(asked.drawn)]
        cached = last.usage.cached_tokens
        assert cached % 16 == 0 or (cached == len(prompt) and asked.given)
        assert cached < len(prompt) or asked.given
        # somebody of the same salt had read it
        others = self.read.setdefault(asked.item.cache_salt, [])
        assert not cached or any(
            o[:cached] == prompt[:cached] for o in [*others, *self.alive(name)]
        )
        others.append(prompt + asked.drawn)

    def alive(self, name: str) -> list[list[int]]:
        """Beginnings of those who are still here, also of this one's other lives."""
        return [array("i", a.item.tokens).tolist() for n, a in self.asked.items() if n != name]

    @invariant()
    def pages_add_up(self) -> None:
        pages = self.runner._pages
        seated = [r for r in self.driver._seats if r.slot is not None]
        assert pages.num_leases == len(seated) <= SLOTS
        assert all(r.lease is not None for r in seated)
        assert all(list(r.table) == r.lease.pages for r in seated if r.lease)
        assert pages.num_promised <= pages.num_free + pages.num_evictable
        held = {page for r in seated if r.lease for page in r.lease.pages}
        assert len(held) == pages.num_used
        assert set(self.runner._lookups) <= {r.request_id for r in seated}

    def finish(self) -> None:
        """All come back, and end."""
        while any(a.snapshot for a in self.asked.values()):
            self.resume(0)
        for _ in range(400):
            if not self.asked:
                break
            for name in self.asked:
                self.driver.unpause(name)
            self.step(1)
        assert not self.asked
        assert self.driver.wait_s() is None
        pages = self.runner._pages
        assert (pages.num_leases, pages.num_promised, pages.num_used) == (0, 0, 0)
        assert pages.num_free + pages.num_evictable == pages.num_pages == 15


FusedMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestFusedMachine = FusedMachine.TestCase
