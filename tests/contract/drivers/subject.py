"""A loaded driver as the suites of this folder see it."""

from __future__ import annotations

import importlib
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmos.abi.driver import Driver, LoadReport, Preparer, Waking
from llmos.abi.events import Event, Tokens
from llmos.abi.inference import Prepared, PrepareItem, Sampling, TextPrompt, TokensPrompt, WorkItem
from llmos.drivers.catalog import DRIVERS
from tests.contract.drivers.kits import KITS, Kit
from tests.contract.drivers.verbs import ON_TORCH, driver_of
from tests.unit.drivers.tiny import make_spec

PATIENCE_S = 30.0
TEXT = "hello the abc"


@dataclass
class Subject:
    """A loaded driver, its preparer, and how to ask it for so many tokens.

    `is_fused`: bits depend on a request's own tokens only, whatever was computed when, and where.
    """

    driver: Driver
    preparer: Preparer
    report: LoadReport
    progress: list[float]
    kit: Kit
    another: Callable[..., Subject]
    snapshots: Path
    is_fused: bool
    num_prepared: int = field(default=0)

    def prepare(self, prompt: TextPrompt | TokensPrompt) -> Prepared:
        self.num_prepared += 1
        return self.preparer.prepare(
            PrepareItem(f"req_{self.num_prepared}", "", "", prompt, self.kit.vocab_size)
        )

    def item(self, request_id: str, num_tokens: int, text: str = TEXT) -> WorkItem:
        tokens = self.prepare(TextPrompt(text)).tokens
        sampling = Sampling(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        return WorkItem(request_id, tokens, sampling, options=self.kit.ask(num_tokens))

    def submit(self, request_id: str, num_tokens: int, text: str = TEXT) -> None:
        self.driver.submit(self.item(request_id, num_tokens, text))

    def run(self, num_steps: int = 2000) -> dict[str, list[Event]]:
        events: dict[str, list[Event]] = {}
        for _ in range(num_steps):
            if not self._has_work():
                break
            for event in self.step():
                events.setdefault(event.request_id, []).append(event)
        return events

    def _has_work(self) -> bool:
        is_elsewhere = isinstance(self.driver, Waking) and self.driver.health().num_running
        return self.driver.wait_s() is not None or bool(is_elsewhere)

    def step(self) -> list[Event]:
        """One step. Of an engine that is elsewhere: every request that runs has moved."""
        events = self.driver.step()
        if not isinstance(self.driver, Waking):
            return events
        self.kit.tick()
        deadline_s = time.monotonic() + PATIENCE_S
        num_running = self.driver.health().num_running
        moved: set[str] = set()
        while len(moved) < num_running:
            assert time.monotonic() < deadline_s, "a request does not move"
            select.select([self.driver.wake_fd()], [], [], PATIENCE_S)
            found = self.driver.step()
            moved |= {event.request_id for event in found}
            events += found
        return events

    def is_idle(self) -> bool:
        """As after `load`: whatever a test has left is gone."""
        if not self.driver.health().ok or self.driver.health().num_paused:
            return False
        self.run()
        return not self.driver.health().num_running

    def files(self) -> list[Path]:
        """What lies where snapshots are written."""
        return sorted(self.snapshots.iterdir()) if self.snapshots.exists() else []


def open_subject(name: str, folder: Path, own: Path, **fields: Any) -> Subject:
    """A driver by its name, loaded. `another(**fields)` loads a second one of the same kind."""
    entry = DRIVERS[driver_of(name)]
    driver: Driver = resolve(entry.entry)()
    progress: list[float] = []
    snapshots = own / "suspended"
    given: dict[str, Any] = {"scratch": str(own), "snapshots": str(snapshots)}
    if name in {"native", ON_TORCH}:
        given["options"] = {"engine": "torch" if name == ON_TORCH else "fused"}
    given["options"] = given.get("options", {}) | KITS[driver_of(name)].options
    spec = make_spec(folder, **(given | fields))
    report = driver.load(spec, lambda fraction, what: progress.append(fraction))
    return Subject(
        driver,
        resolve(entry.prepare)(str(folder)),
        report,
        progress,
        kit=KITS[driver_of(name)],
        another=lambda **other: open_subject(name, folder, own, **other),
        snapshots=snapshots,
        is_fused=name == "native",
    )


def resolve(entry: str) -> Any:
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def num_tokens(events: list[Event]) -> int:
    return sum(len(event.token_ids) for event in events if isinstance(event, Tokens))


def check_stream(events: list[Event]) -> Event:
    """Tokens first, then exactly one terminal event, whose usage counts them."""
    *tokens, last = events
    assert all(isinstance(event, Tokens) for event in tokens)
    assert not isinstance(last, Tokens)
    assert last.usage.completion_tokens == num_tokens(tokens)
    return last
