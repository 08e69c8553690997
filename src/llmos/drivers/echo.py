"""A driver without a model: it answers with the prompt, as scripted. The system's test double.

One token is one Unicode character (its code point is its id). A request's script is its
`llmos.driver` object; a version's `options` script the loading. It ships, because a team that tests
against LLMOS needs a model that is free, instant and fails on command.
"""

from __future__ import annotations

import os
import signal
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import (
    Aborted,
    Event,
    Failed,
    Finished,
    FinishReason,
    Logprobs,
    TokenLogprob,
    Tokens,
)
from llmos.abi.inference import (
    UNBOUNDED,
    ChatPrompt,
    ItemsPrompt,
    Prepared,
    PrepareItem,
    TextPrompt,
    Usage,
    WorkItem,
)
from llmos.drivers.echo_pages import EchoPages, KVBytes
from llmos.drivers.items import check_plain, check_texts, read_tokens
from llmos.drivers.resident import Ballast, read_resident
from llmos.drivers.snapshots.shelf import Identity, Progress, Shelf, decode_state, tokens_of
from llmos.errors import (
    Conflict,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    LoadFailed,
    NotFound,
    UnsupportedParameter,
)

VOCAB_SIZE = 0x110000
"""Every code point is a token."""

ROOM_BYTES = 4 << 20
"""More than the requests of a batch take."""

_SURROGATES = range(0xD800, 0xE000)


MAX_DELAY_MS = 86_400_000.0

Millis = Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_MS)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request does. Times in milliseconds; `*_after` count tokens; None: never.

    `tokens`: how many to emit, repeating the prompt (default: the prompt once). `per_step`: how
    many in one step. `hang_after` stops the whole worker answering, as a broken engine does.
    """

    tokens: Count | None = None
    per_step: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 1
    first_delay_ms: Millis = 0.0
    delay_ms: Millis = 0.0
    fail_after: Count | None = None
    crash_after: Count | None = None
    hang_after: Count | None = None


class EchoState(msgspec.Struct, frozen=True):
    """What a snapshot of an echo holds besides its tokens: seconds until the next one, and how many
    of the prompt were found in the cache (None: it had not begun)."""

    wait_s: float
    num_cached: int | None = None


Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class LoadScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What loading and parking do. `*_error`: fail with this message.

    A loaded echo holds `resident_bytes` of memory that it has written to, a parked one
    `park_bytes`. `load_kill`: it is killed while it loads, with its memory taken, as the system
    does to a process when memory is out.

    With `kv_pages` it keeps account of pages of `page_tokens`, as an engine with a prefix cache
    does: beginnings are found again, and who has no room waits in the line.
    """

    load_delay_ms: Millis = 0.0
    load_error: str | None = None
    load_kill: bool = False
    resident_bytes: Size = 0
    park_bytes: Size = 0
    unpark_delay_ms: Millis = 0.0
    unpark_error: str | None = None
    kv_pages: Count = 0
    page_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 16


@dataclass(slots=True)
class _Row:
    """One request: what it will say, how far it is. In a row, it goes on at `due_s` (monotonic);
    out of one, `wait_s` after it gets one. `num_cached` of the prompt were found when it began.
    """

    item: WorkItem
    script: Script
    prompt: array[int]
    num_tokens: int
    wait_s: float
    due_s: float = 0.0
    emitted: int = 0
    recomputed: bool = False
    num_cached: int | None = None

    def next_tokens(self) -> list[int]:
        """The next at most `per_step` tokens, none past the point where the script breaks it."""
        end = min(self.emitted + self.script.per_step, self.num_tokens)
        for stop in (self.script.fail_after, self.script.crash_after, self.script.hang_after):
            if stop is not None and self.emitted < stop:
                end = min(end, stop)
        return [self.token(i) for i in range(self.emitted, end)]

    def token(self, index: int) -> int:
        return self.prompt[index % len(self.prompt)]

    def tokens(self) -> list[int]:
        """Of prompt and answer so far."""
        return [*self.prompt, *map(self.token, range(self.emitted))]

    def count(self) -> Usage:
        return Usage(len(self.prompt), self.emitted, self.num_cached or 0)


def _script(options: dict[str, Any]) -> Script:
    try:
        return msgspec.convert(options, Script, strict=False)
    except msgspec.ValidationError as error:
        raise UnsupportedParameter(f"echo: {error}", param="llmos.driver") from error


def _load_script(options: dict[str, Any]) -> LoadScript:
    try:
        return msgspec.convert(options, LoadScript)
    except msgspec.ValidationError as error:
        raise LoadFailed(f"echo: {error}") from error


def _characters(packed: bytes, param: str) -> array[int]:
    """Tokens, all of them characters. Raises InvalidRequest."""
    tokens = read_tokens(packed, VOCAB_SIZE, param)
    if tokens and max(tokens) >= _SURROGATES.start and not all(map(_is_character, tokens)):
        raise InvalidRequest(f"{param} has a token that is no character", param=param)
    return array("i", tokens)


def _is_character(token_id: int) -> bool:
    return 0 <= token_id < VOCAB_SIZE and token_id not in _SURROGATES


def _text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def _certain(token_id: int, most: int) -> Logprobs:
    """An echo has no doubt: of others there are none."""
    drawn = TokenLogprob(token_id, chr(token_id).encode(), 0.0)
    return Logprobs(drawn, [drawn] if most else [])


class EchoDriver:
    """Behind `abi.Driver`. Needs no engine, no files, and next to no memory."""

    capabilities = Capabilities(
        driver="echo",
        kinds=["generate"],
        formats=["none"],
        snapshots=True,
        parks=True,
        features=["logprobs"],
    )

    def __init__(self) -> None:
        self._num_slots = 1
        self._context_length = 0
        self._rows: dict[str, _Row] = {}
        self._paused: dict[str, _Row] = {}
        self._waiting: deque[_Row] = deque()
        self._ended: list[Event] = []
        self._shelf: Shelf | None = None
        self._loading = LoadScript()
        self._ballast = Ballast(0)
        self._parked = False
        self._pages = EchoPages(0, 1)
        self._refused: _Row | None = None

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        script = self._loading = _load_script(spec.options)
        progress(0.0, "echo")
        time.sleep(script.load_delay_ms / 1000)
        self._hold(script.resident_bytes)
        if script.load_kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if script.load_error is not None:
            raise LoadFailed(script.load_error)
        self._num_slots = spec.num_slots
        self._context_length = spec.context_length
        self._pages = EchoPages(script.kv_pages, script.page_tokens)
        if self._pages.num_tokens is not None:
            self._context_length = min(spec.context_length, self._pages.num_tokens)
        self._shelf = Shelf(
            spec, Identity("echo", spec.weights_digest, "none", "cpu", spec.num_threads)
        )
        progress(1.0, "echo")
        length = self._context_length
        return LoadReport("none", "cpu", True, length, spec.num_slots, self.memory())

    def unload(self) -> None:
        self._rows.clear()
        self._paused.clear()
        self._waiting.clear()
        self._ballast.drop()

    def _hold(self, size_bytes: int) -> None:
        """So much memory instead of what it held."""
        self._ballast.drop()
        self._ballast = Ballast(size_bytes)

    def park(self) -> MemoryReport:
        if self._shelf is None:
            raise EngineFailed("no model is loaded")
        if self._rows or self._paused or self._waiting or self._ended:
            raise Conflict("a request is in the batch")
        if not self._parked:
            self._hold(self._loading.park_bytes)
            self._parked = True
            self._pages.clear()
        return self.memory()

    def unpark(self) -> MemoryReport:
        if self._parked:
            time.sleep(self._loading.unpark_delay_ms / 1000)
            if self._loading.unpark_error is not None:
                raise LoadFailed(self._loading.unpark_error)
            self._hold(self._loading.resident_bytes)
            self._parked = False
        return self.memory()

    def submit(self, item: WorkItem) -> None:
        self._waiting.append(self._make(item))

    def _make(self, item: WorkItem) -> _Row:
        check_plain(item, self.capabilities.features)
        script = _script(item.options)
        prompt = _characters(item.tokens, "prompt")
        wanted = len(prompt) if script.tokens is None else script.tokens
        if item.sampling.max_tokens != UNBOUNDED:
            wanted = min(wanted, item.sampling.max_tokens)
        if not prompt:
            raise InvalidRequest("an empty prompt has no echo", param="prompt")
        if len(prompt) + wanted > self._context_length:
            raise ContextLengthExceeded(f"{len(prompt)} + {wanted} > {self._context_length} tokens")
        before = len(_characters(item.generated, "generated"))
        if before > wanted:
            raise InvalidRequest(f"{before} tokens generated of {wanted}", param="generated")
        wait_s = script.first_delay_ms / 1000
        return _Row(item, script, prompt, wanted, wait_s, emitted=before, recomputed=before > 0)

    def step(self) -> list[Event]:
        now_s = time.monotonic()
        self._fill(now_s)
        events, self._ended = self._ended, []
        for row in list(self._rows.values()):
            if row.due_s <= now_s:
                self._advance(row, now_s, events)
        return events

    def _fill(self, now_s: float) -> None:
        while self._waiting and len(self._rows) < self._num_slots:
            row = self._waiting[0]
            if not self._seat(row):
                return
            self._waiting.popleft()
            row.due_s = now_s + row.wait_s
            self._rows[row.item.request_id] = row

    def _seat(self, row: _Row) -> bool:
        """Take the pages it needs; not so: it has to wait for them."""
        if not self._pages.is_kept:
            return True
        tokens, most = row.tokens(), len(row.prompt) + row.num_tokens
        found = self._pages.seat(row.item.request_id, row.item.cache_salt, tokens, most)
        self._refused = row if found is None else None
        if found is not None and row.num_cached is None:
            row.num_cached = min(found, len(row.prompt))
        return found is not None

    def _leave(self, row: _Row, *, poisoned: bool = False) -> None:
        if self._pages.is_kept:
            self._pages.leave(row.item.request_id, row.tokens(), poisoned=poisoned)
            self._refused = None

    def _advance(self, row: _Row, now_s: float, events: list[Event]) -> None:
        script, request_id = row.script, row.item.request_id
        if row.emitted == script.crash_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if row.emitted == script.hang_after:
            signal.pause()
        if row.emitted == script.fail_after:
            error = EngineFailed("the script says so").to_info()
            self._end(request_id, Failed(request_id, error, row.count()), events)
            return
        ids = row.next_tokens()
        row.emitted += len(ids)
        self._pages.grow(request_id, len(row.prompt) + row.emitted)
        # from when it was due, not from when we woke up: rates are as scripted
        row.due_s = max(now_s, row.due_s + script.delay_ms / 1000)
        if ids:
            most = row.item.sampling.logprobs
            priced = None if most is None else [_certain(i, most) for i in ids]
            events.append(Tokens(request_id, ids, _text(ids), priced))
        if row.emitted >= row.num_tokens and row.emitted not in self._breaks(script):
            reason = self._reason(row)
            done = Finished(request_id, reason, row.count(), deterministic=not row.recomputed)
            self._end(request_id, done, events)

    @staticmethod
    def _breaks(script: Script) -> tuple[int | None, ...]:
        return script.fail_after, script.crash_after, script.hang_after

    @staticmethod
    def _reason(row: _Row) -> FinishReason:
        full = len(row.prompt) if row.script.tokens is None else row.script.tokens
        return FinishReason.STOP if row.num_tokens == full else FinishReason.LENGTH

    def _end(self, request_id: str, event: Event, events: list[Event]) -> None:
        self._leave(self._rows.pop(request_id), poisoned=isinstance(event, Failed))
        events.append(event)

    def wait_s(self) -> float | None:
        has_row = len(self._rows) < self._num_slots
        if self._ended or (self._waiting and has_row and self._waiting[0] is not self._refused):
            return 0.0
        due = [row.due_s for row in self._rows.values()]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def pause(self, request_id: str) -> None:
        """The row is free for another; what was left of a delay is left then, too."""
        if row := self._rows.pop(request_id, None):
            row.wait_s = max(0.0, row.due_s - time.monotonic())
            self._leave(row)
            self._paused[request_id] = row
        elif row := self._find(request_id):
            self._waiting.remove(row)
            self._paused[request_id] = row

    def unpause(self, request_id: str) -> None:
        """Into the next free row."""
        if row := self._paused.pop(request_id, None):
            self._waiting.append(row)

    def abort(self, request_id: str, reason: str) -> None:
        if row := self._take(request_id):
            self._ended.append(Aborted(request_id, reason, row.count()))
        elif self._shelf is not None and (usage := self._shelf.drop(request_id)):
            self._ended.append(Aborted(request_id, reason, usage))

    def _find(self, request_id: str) -> _Row | None:
        """In the line for a row."""
        return next((r for r in self._waiting if r.item.request_id == request_id), None)

    def _where(self, request_id: str) -> _Row | None:
        """In a row, paused, or in the line."""
        found = self._rows.get(request_id) or self._paused.get(request_id)
        return found or self._find(request_id)

    def _take(self, request_id: str) -> _Row | None:
        """Out of wherever it is."""
        row = self._rows.pop(request_id, None) or self._paused.pop(request_id, None)
        if row is None and (row := self._find(request_id)):
            self._waiting.remove(row)
        if row is not None:
            self._leave(row)
        return row

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        """Of an echo: how far it is, and what is left of a delay."""
        row = self._where(request_id)
        if row is None or self._shelf is None:
            raise NotFound(f"{request_id} is not in the batch")
        left_s = max(0.0, row.due_s - time.monotonic()) if request_id in self._rows else row.wait_s
        drawn = [row.token(i) for i in range(row.emitted)]
        progress = Progress(drawn, 0, row.num_cached or 0)
        state = EchoState(left_s, row.num_cached)
        ref = self._shelf.write(row.item, progress, state, (), 0, folder)
        self._take(request_id)
        return ref

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Into the next free row; what was left of a delay is left then."""
        if self._where(item.request_id):
            raise Conflict(f"{item.request_id} is in the batch already")
        if self._shelf is None:
            raise EngineFailed("no model is loaded")
        row = self._make(item)
        with self._shelf.open(item, snapshot) as reader:
            state = decode_state(reader, EchoState)
            row.wait_s, row.num_cached = state.wait_s, state.num_cached
            row.emitted = len(tokens_of(reader.header))
            reader.read_payload((), snapshot.digest)
        self._waiting.append(row)
        self._shelf.forget(item.request_id)

    def attach(self, program: str, budget: dict[str, float]) -> None:
        raise EngineFailed("echo has no model to attach to")

    def health(self) -> Health:
        return Health(True, len(self._rows), len(self._paused))

    def memory(self) -> MemoryReport:
        now = read_resident()
        # it takes all of its memory at once; requests need next to none
        bound_bytes = now.rss_bytes + (0 if self._parked else ROOM_BYTES)
        kv = KVBytes() if self._parked else self._pages.count()
        return MemoryReport(
            now.rss_bytes,
            kv_reserved_bytes=kv.reserved,
            kv_used_bytes=kv.used,
            bound_bytes=bound_bytes,
            peak_bytes=now.peak_bytes,
            kv_cached_bytes=kv.cached,
        )


class EchoPreparer:
    """Characters are tokens; of a chat, the last message's."""

    def prepare(self, item: PrepareItem) -> Prepared:
        ids = self._ids(item)
        for i in ids:
            if not _is_character(i):
                raise InvalidRequest(f"token id {i} is not a character", param="prompt")
        if not ids:
            raise InvalidRequest("the prompt is empty", param="prompt")
        prompt, form = item.prompt, ""
        if isinstance(prompt, ChatPrompt) and prompt.tools and prompt.tool_choice != "none":
            form = prompt.tool_format or "hermes"  # whoever writes the prompt writes the calls
        packed = array("i", ids).tobytes()
        return Prepared(item.request_id, packed, len(ids), item.grammar, form)

    def _ids(self, item: PrepareItem) -> list[int]:
        prompt = item.prompt
        if isinstance(prompt, ChatPrompt):
            said = [_content(message.get("content")) for message in prompt.messages]
            return [ord(c) for c in said[-1]]
        if isinstance(prompt, TextPrompt):
            return [ord(c) for c in prompt.text]
        if isinstance(prompt, ItemsPrompt):
            raise InvalidRequest("echo generates: it takes no items", param="inputs")
        return prompt.token_ids


def _content(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list. Raises UnsupportedParameter."""
    if isinstance(content, list):
        check_texts(content)
        return "".join(part.get("text", "") for part in content)
    return content or ""


def make(folder: str) -> EchoPreparer:
    """The Preparer's entry."""
    return EchoPreparer()
